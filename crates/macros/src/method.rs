//! A method of the trait, read as a method of a service.

use heck::ToUpperCamelCase;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use stubborn_stubs::{Argument, Given, Method, Semantics, Shape, StubMethod};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Lit, LitStr, Meta, Pat, PatType,
    PathArguments, PathSegment, Receiver, Result, ReturnType, TraitItemFn, Type,
};

use crate::{options, semantics};

/// What a method is, and the Rust that it is made of.
pub(crate) struct Read {
    pub(crate) method: Method,
    request: TokenStream,
    reply: TokenStream,
    comment: Vec<String>,
    arguments: Vec<Argument>,
    /// The type of its failures, as it is named here.
    pub(crate) status: TokenStream,
    span: Span,
}

/// The client's own functions.
const HELPERS: [&str; 3] = ["new", "connect", "outcome"];

impl Read {
    /// Reads a method of the service with this full name.
    pub(crate) fn of(item: &TraitItemFn, service: &str) -> Result<Self> {
        let signature = &item.sig;
        let name = &signature.ident;
        check_form(item)?;
        let attributes = Attributes::take(&item.attrs)?;
        let arguments = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(argument) => Some(read_argument(argument)),
            FnArg::Receiver(_) => None,
        });
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        let (returned, status) = returned(&signature.output, name.span())?;
        let streams = Streams::of(&arguments, &returned)?;
        let semantics = match &attributes.semantics {
            None => Semantics::AtMostOnce,
            Some((attribute, semantics)) => {
                semantics::check(attribute, *semantics, streams.shape, is_unit(&returned))?;
                *semantics
            }
        };
        let bare = name.to_string();
        let bare = bare.trim_start_matches("r#");
        let rpc = attributes.name.unwrap_or_else(|| bare.to_upper_camel_case());
        if HELPERS.contains(&bare) {
            let text = format!(
                "a client has a function `{bare}` of its own: call the method another, with \
                 `#[name = \"{rpc}\"]` if its name on the wire is to stay"
            );
            return Err(Error::new(name.span(), text));
        }
        Ok(Self {
            method: Method {
                full_name: format!("{service}/{rpc}"),
                rust_name: name.to_string(),
                deprecated: attributes.deprecated,
                semantics,
                shape: streams.shape,
            },
            request: streams.request,
            reply: streams.reply,
            comment: attributes.comment,
            arguments: arguments.into_iter().map(|(argument, _)| argument).collect(),
            status: status.to_token_stream(),
            span: name.span(),
        })
    }

    pub(crate) fn stub(&self, index: usize) -> StubMethod<'_> {
        StubMethod {
            index,
            method: &self.method,
            request: self.request.clone(),
            reply: self.reply.clone(),
            comment: self.comment.clone(),
            arguments: Some(self.arguments.clone()),
            span: self.span,
        }
    }
}

/// Checks all that is neither an attribute nor an argument nor the reply.
fn check_form(item: &TraitItemFn) -> Result<()> {
    let signature = &item.sig;
    let wrong = |tokens: &dyn ToTokens, text: &str| Err(Error::new_spanned(tokens, text));
    if signature.asyncness.is_none() {
        return wrong(&signature.fn_token, "a method of a service is async: write `async fn`");
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return wrong(
            &signature.generics,
            "a method of a service is not generic: what travels has one type. Write that type, or \
             an enum of several",
        );
    }
    if let Some(unsafety) = &signature.unsafety {
        return wrong(unsafety, "a method of a service is safe: callers are on other machines");
    }
    if let Some(body) = &item.default {
        return wrong(
            body,
            "a method of a service has no body here: write `;`, and the body in the `impl`",
        );
    }
    match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) if is_shared(receiver) => Ok(()),
        Some(FnArg::Receiver(receiver)) => wrong(
            receiver,
            "write `&self`: calls run side by side, so state that they change stands behind a lock",
        ),
        _ => Err(Error::new(
            signature.paren_token.span.join(),
            "the first argument of a method of a service is `&self`",
        )),
    }
}

fn is_shared(receiver: &Receiver) -> bool {
    receiver.reference.as_ref().is_some_and(|(_, lifetime)| lifetime.is_none())
        && receiver.mutability.is_none()
        && receiver.colon_token.is_none()
}

struct Attributes {
    semantics: Option<(Attribute, Semantics)>,
    name: Option<String>,
    deprecated: bool,
    comment: Vec<String>,
}

impl Attributes {
    fn take(attributes: &[Attribute]) -> Result<Self> {
        let mut rest = attributes.to_vec();
        let semantics = semantics::take(&mut rest)?;
        let mut found = Self { semantics, name: None, deprecated: false, comment: comment(&rest) };
        for attribute in &rest {
            let path = attribute.path();
            if path.is_ident("name") {
                found.name = Some(name(attribute)?);
            } else if path.is_ident("deprecated") {
                found.deprecated = true;
            } else if !path.is_ident("doc") && !path.is_ident("allow") && !path.is_ident("expect") {
                return Err(Error::new_spanned(
                    attribute,
                    "a method of a service takes `#[exactly_once]`, `#[at_most_once]`, \
                     `#[idempotent]`, `#[no_side_effects]`, `#[maybe]`, `#[name = \"..\"]`, \
                     `#[deprecated]` and comments",
                ));
            }
        }
        Ok(found)
    }
}

/// The text of `#[name = "Transfer"]`.
fn name(attribute: &Attribute) -> Result<String> {
    let text = attribute.meta.require_name_value().ok().and_then(|pair| text(&pair.value));
    let text =
        text.ok_or_else(|| Error::new_spanned(attribute, "write `#[name = \"Transfer\"]`"))?;
    Ok(options::single(text)?.value())
}

fn text(value: &Expr) -> Option<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.clone()),
        _ => None,
    }
}

/// The lines of a comment.
pub(crate) fn comment(attributes: &[Attribute]) -> Vec<String> {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => Some(text(&pair.value)?.value()),
        _ => None,
    });
    lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// An argument, and of a stream the type of its messages.
fn read_argument(argument: &PatType) -> Result<(Argument, Option<Type>)> {
    let Pat::Ident(pattern) = &*argument.pat else {
        return Err(Error::new_spanned(&argument.pat, "an argument here is a plain name"));
    };
    if let Some(attribute) = argument.attrs.first() {
        return Err(Error::new_spanned(attribute, "an argument of a service takes no attributes"));
    }
    let (name, of) = (pattern.ident.clone(), &*argument.ty);
    let argument = |given| Argument { name, of: quote!(#of), given };
    let segment = last_segment(of);
    let is = |name: &str| segment.is_some_and(|segment| segment.ident == name);
    if is("CallContext") {
        return Ok((argument(Some(Given::Context)), None));
    }
    let stream = match segment {
        Some(segment) if is("Requests") => Some((Given::Requests, segment)),
        Some(segment) if is("ReplySender") => Some((Given::Replies, segment)),
        _ => None,
    };
    if let Some((given, segment)) = stream {
        return match types(segment).as_slice() {
            [message] => Ok((argument(Some(given)), Some(message.clone()))),
            _ => {
                Err(Error::new_spanned(of, "say what it streams: `Requests<T>`, `ReplySender<T>`"))
            }
        };
    }
    match of {
        Type::Reference(_) => Err(Error::new_spanned(
            of,
            "an argument is sent, so it is owned: write `String` for `&str`, `Vec<T>` for `&[T]`, \
             and `T` for `&T` (`context: CallContext` is by value, too)",
        )),
        Type::ImplTrait(_) => Err(Error::new_spanned(
            of,
            "an argument is sent, so its type is known: write that of the value",
        )),
        _ => Ok((argument(None), None)),
    }
}

/// `Receipt` and `Status` of `-> Result<Receipt, Status>`.
fn returned(output: &ReturnType, method: Span) -> Result<(Type, Type)> {
    let ReturnType::Type(_, output) = output else {
        return Err(Error::new(
            method,
            "a call ends with a reply or a status: write `-> Result<(), Status>`",
        ));
    };
    if let Some(segment) = last_segment(output).filter(|segment| segment.ident == "Result")
        && let [reply, error] = types(segment).as_slice()
        && last_segment(error).is_some_and(|segment| segment.ident == "Status")
    {
        return match reply {
            Type::Reference(_) | Type::ImplTrait(_) => Err(Error::new_spanned(
                reply,
                "a reply is sent, so it is owned and its type is known",
            )),
            reply => Ok((reply.clone(), error.clone())),
        };
    }
    Err(Error::new(
        output.span(),
        "a call ends with a reply or a status: write `-> Result<Reply, Status>`; errors of your own \
         travel in the reply, `Result<Result<Reply, MyError>, Status>`",
    ))
}

/// Which sides stream, and the types of the messages.
struct Streams {
    shape: Shape,
    request: TokenStream,
    reply: TokenStream,
}

impl Streams {
    fn of(arguments: &[(Argument, Option<Type>)], returned: &Type) -> Result<Self> {
        let mut sent = Vec::new();
        let [mut context, mut requests, mut replies] = [None, None, None];
        for (argument, message) in arguments {
            let slot = match argument.given {
                None => {
                    sent.push(argument);
                    continue;
                }
                Some(Given::Context) => &mut context,
                Some(Given::Requests) => &mut requests,
                Some(Given::Replies) => &mut replies,
            };
            if slot.replace(message).is_some() {
                return Err(Error::new_spanned(&argument.of, "a method has one of these at most"));
            }
        }
        if let (Some(_), Some(first)) = (requests, sent.first()) {
            return Err(Error::new_spanned(
                &first.of,
                "a method that takes a stream of requests takes no other argument that is sent: put \
                 it into the first message, an enum of both",
            ));
        }
        if replies.is_some() && !is_unit(returned) {
            return Err(Error::new_spanned(
                returned,
                "the replies go through the `ReplySender`: return `Result<(), Status>`",
            ));
        }
        let of = sent.iter().map(|argument| &argument.of);
        Ok(Self {
            shape: Shape::of(requests.is_some(), replies.is_some()),
            request: requests
                .and_then(Option::as_ref)
                .map_or(quote!((#(#of,)*)), ToTokens::to_token_stream),
            reply: replies.and_then(Option::as_ref).unwrap_or(returned).to_token_stream(),
        })
    }
}

fn is_unit(of: &Type) -> bool {
    matches!(of, Type::Tuple(tuple) if tuple.elems.is_empty())
}

fn last_segment(of: &Type) -> Option<&PathSegment> {
    match of {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        _ => None,
    }
}

/// The types between `<` and `>`.
fn types(segment: &PathSegment) -> Vec<Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of.clone()),
        _ => None,
    });
    types.collect()
}
