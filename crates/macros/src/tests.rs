//! Wrong input is answered with what to write instead, in the place where it is wrong.

use proc_macro2::TokenStream;
use quote::quote;

use crate::expand::service;

/// What the compiler would say, one after the other.
#[track_caller]
fn wrong(attribute: TokenStream, item: TokenStream) -> Vec<String> {
    let error = service(attribute, item).expect_err("it is wrong");
    error.into_iter().map(|error| error.to_string()).collect()
}

/// What it would say of this method.
#[track_caller]
fn of_method(method: TokenStream) -> String {
    match wrong(quote!(), quote!(trait Bank { #method })).as_slice() {
        [text] => text.clone(),
        several => panic!("{several:#?}"),
    }
}

macro_rules! says {
    ($text:literal: $($method:tt)*) => {{
        let said = of_method(quote!($($method)*));
        assert!(said.contains($text), "{said}");
    }};
}

#[test]
fn a_method_without_self_by_reference_async_or_result_is_told_what_to_write() {
    says!("write `&self`": async fn a(self) -> Result<(), Status>;);
    says!("write `&self`": async fn a(&mut self) -> Result<(), Status>;);
    says!("write `&self`": async fn a(self: Arc<Self>) -> Result<(), Status>;);
    says!("first argument of a method of a service is `&self`": async fn a() -> Result<(), Status>;);
    says!("write `async fn`": fn a(&self) -> Result<(), Status>;);
    says!("`-> Result<(), Status>`": async fn a(&self););
    says!("`-> Result<Reply, Status>`": async fn a(&self) -> u64;);
    says!("`-> Result<Reply, Status>`": async fn a(&self) -> Result<u64, MyError>;);
    says!("`-> Result<Reply, Status>`": async fn a(&self) -> std::io::Result<u64>;);
    says!("no body here": async fn a(&self) -> Result<(), Status> { Ok(()) });
}

#[test]
fn what_cannot_be_sent_is_refused() {
    says!("`String` for `&str`": async fn a(&self, text: &str) -> Result<(), Status>;);
    says!("its type is known": async fn a(&self, text: impl Copy) -> Result<(), Status>;);
    says!("not generic": async fn a<T>(&self, text: T) -> Result<(), Status>;);
    says!("plain name": async fn a(&self, (a, b): (u8, u8)) -> Result<(), Status>;);
    says!("is owned": async fn a(&self) -> Result<&u8, Status>;);
    assert!(
        wrong(
            quote!(),
            quote!(
                trait Bank<T> {}
            )
        )[0]
        .contains("not generic")
    );
    assert!(
        wrong(
            quote!(),
            quote!(
                trait Bank: Clone {}
            )
        )[0]
        .contains("no other traits")
    );
    assert!(
        wrong(
            quote!(),
            quote!(
                struct Bank;
            )
        )[0]
        .contains("stands on a trait")
    );
    assert!(
        wrong(
            quote!(),
            quote!(
                trait Bank {
                    type A;
                }
            )
        )[0]
        .contains("nothing else")
    );
}

#[test]
fn semantics_that_contradict_each_other_or_the_shape_are_refused() {
    says!("both idempotent and exactly_once": #[idempotent] #[exactly_once] async fn a(&self) -> Result<(), Status>;);
    says!("no arguments": #[maybe(yes)] async fn a(&self) -> Result<(), Status>;);
    says!("gets no reply": #[maybe] async fn a(&self) -> Result<u8, Status>;);
    says!("streams cannot be exactly_once": #[exactly_once] async fn a(&self, replies: ReplySender<u8>) -> Result<(), Status>;);
    says!("takes `#[exactly_once]`": #[cfg(test)] async fn a(&self) -> Result<(), Status>;);
}

#[test]
fn streams_that_do_not_fit_are_refused() {
    says!("no other argument": async fn a(&self, n: u8, requests: Requests<u8>) -> Result<(), Status>;);
    says!("go through the `ReplySender`": async fn a(&self, replies: ReplySender<u8>) -> Result<u8, Status>;);
    says!("one of these": async fn a(&self, a: ReplySender<u8>, b: ReplySender<u8>) -> Result<(), Status>;);
    says!("say what it streams": async fn a(&self, requests: Requests) -> Result<(), Status>;);
}

#[test]
fn names_that_are_none_or_taken_are_refused() {
    says!("a function `connect` of its own": async fn connect(&self) -> Result<(), Status>;);
    says!("`#[name = \"Transfer\"]`": #[name] async fn a(&self) -> Result<(), Status>;);
    let both = quote! {
        trait Bank {
            async fn a_b(&self) -> Result<(), Status>;
            #[name = "AB"]
            async fn other(&self) -> Result<(), Status>;
        }
    };
    assert!(wrong(quote!(), both)[0].contains("`a_b` and `other` would both be Bank/AB"));
    let bank = || {
        quote!(
            trait Bank {}
        )
    };
    assert!(wrong(quote!(package = "bank v1"), bank())[0].contains("names with dots"));
    assert!(wrong(quote!(name = "bank.Bank"), bank())[0].contains("`package`"));
    assert!(wrong(quote!(name = "A", name = "B"), bank())[0].contains("twice"));
    assert!(wrong(quote!(version = 1), bank())[0].contains("`package = \"bank.v1\"`"));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let two = quote! {
        trait Bank<T> {
            fn a(&self) -> Result<(), Status>;
            async fn b(self) -> Result<(), Status>;
        }
    };
    assert_eq!(wrong(quote!(), two).len(), 3);
}

#[test]
fn arguments_that_are_called_like_what_is_generated_are_taken_as_they_are() {
    let bank = quote! {
        trait Bank {
            async fn a(&self, at: u8, request: T, id: u8, handler: u8, context: CallContext)
                -> Result<(), Status>;
            #[no_side_effects]
            async fn b(&self, position: u8, replies: ReplySender<u8>) -> Result<(), Status>;
        }
    };
    let text = service(quote!(package = "p"), bank).unwrap().to_string();
    assert!(text.contains("\"p.Bank/A\"") && text.contains("at_ : &"), "{text}");
    assert!(text.contains("position_ : u64") && text.contains("BankServer < Handler >"), "{text}");
}
