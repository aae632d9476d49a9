//! What is promised about a method's calls, by its attributes.

use stubborn_stubs::{Semantics, Shape};
use syn::Attribute;

/// What an attribute means; `None` for one that says nothing of it.
fn of(attribute: &Attribute) -> Option<Semantics> {
    Some(match attribute.path().get_ident()?.to_string().as_str() {
        "maybe" => Semantics::Maybe,
        "at_most_once" => Semantics::AtMostOnce,
        "idempotent" => Semantics::Idempotent,
        "no_side_effects" => Semantics::Read,
        "exactly_once" => Semantics::ExactlyOnce,
        _ => return None,
    })
}

/// The attribute that says what is promised, and what that is; the others are left in `attributes`.
pub(crate) fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Option<(Attribute, Semantics)>> {
    let mut found: Option<(Attribute, Semantics)> = None;
    let mut error: Option<syn::Error> = None;
    attributes.retain(|attribute| {
        let Some(semantics) = of(attribute) else { return true };
        let finding = match (&found, attribute.meta.require_path_only()) {
            (_, Err(_)) => Some("this attribute takes no arguments".to_owned()),
            (Some((first, _)), Ok(second)) => Some(format!(
                "a method cannot be both {} and {}: keep one of the two attributes",
                name(first.path()),
                name(second)
            )),
            (None, Ok(_)) => None,
        };
        match finding {
            None => found = Some((attribute.clone(), semantics)),
            Some(text) => error = Some(syn::Error::new_spanned(attribute, text)),
        }
        false
    });
    match error {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

fn name(path: &syn::Path) -> String {
    path.get_ident().map(ToString::to_string).unwrap_or_default()
}

/// As for the options of a `.proto` file: what is promised has to fit what the method sends.
pub(crate) fn check(
    attribute: &Attribute,
    semantics: Semantics,
    shape: Shape,
    returns_nothing: bool,
) -> syn::Result<()> {
    let name = name(attribute.path());
    let wrong = |text: String| Err(syn::Error::new_spanned(attribute, text));
    if matches!(semantics, Semantics::Maybe | Semantics::ExactlyOnce) && shape != Shape::Unary {
        return wrong(format!(
            "a method that streams cannot be {name}: leave the attribute out (a stream runs at most \
             once), or make it a method without streams"
        ));
    }
    if semantics == Semantics::Maybe && !returns_nothing {
        return wrong(format!(
            "a method that is {name} gets no reply: return `Result<(), Status>`, or leave the \
             attribute out"
        ));
    }
    Ok(())
}
