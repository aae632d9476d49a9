//! `trait BankMachine`: what a replicated state machine implements.

use proc_macro2::{Ident, TokenStream};
use quote::quote;

use super::{Stub, StubMethod, ident};
use crate::service::Semantics;

/// The machine's own methods: an rpc of that name gets an underscore in the machine's trait.
const OWN: [&str; 3] = ["activate", "snapshot", "restore"];

pub(super) fn emit(stub: &Stub<'_>) -> Option<TokenStream> {
    stub.replicated().next()?;
    let (runtime, name, vis) = (&stub.runtime, stub.item(&stub.names.machine), &stub.visibility);
    let docs = stub.docs(
        &format!(
            "The service `{}`, as a replicated state machine implements it.",
            stub.service.full_name
        ),
        &[
            format!(
                "Hand it to a group of replicas with [`{}`]. Every replica runs the same commands \
                 in the same order, so a command may depend on the state, its request and `at`, and \
                 on nothing else: no clock, no random numbers, no order of a hash table.",
                stub.names.replica
            ),
            "A panic in a command stops the replica, and every other one that comes to it.".into(),
        ],
    );
    let deprecated = stub.deprecated();
    let methods = stub.replicated().map(|m| method(stub, m));
    let streams = stub.watched().map(|m| stream(stub, m));
    Some(quote! {
        #docs
        #deprecated
        #[allow(clippy::wrong_self_convention)]
        #vis trait #name: ::core::marker::Send + 'static {
            #[doc = " The versions of these commands that the machine supports. Commands run as the active"]
            #[doc = " version has them (`at.version`): the newest that every member of the group"]
            #[doc = " supports, so that programs of two versions run side by side."]
            const VERSIONS: ::core::ops::RangeInclusive<u32> = 1..=1;

            #[doc = " From now on this version is active: its commands, and the form of its snapshots."]
            #[doc = " Called in the same place of the log on every replica, and before the last piece"]
            #[doc = " of a snapshot is [restored](Self::restore)."]
            fn activate(&mut self, version: u32) {
                let _ = version;
            }

            #(#methods)*

            #(#streams)*

            #[doc = " The state, as bytes that [`restore`](Self::restore) reads: `bytes.into()`, or for a"]
            #[doc = " large state in pieces that are made while the machine goes on. Machines with the"]
            #[doc = " same state give the same pieces."]
            fn snapshot(&self) -> #runtime::Image;

            #[doc = " Takes a snapshot in the place of its own state. What was given as one piece comes as"]
            #[doc = " one, and `piece.bytes()` is all of it; several come in order, and are kept apart"]
            #[doc = " until the last one is there (`piece.is_last()`)."]
            #[doc = ""]
            #[doc = " # Errors"]
            #[doc = " If it is none of a snapshot of such a machine."]
            fn restore(
                &mut self,
                piece: #runtime::Piece<'_>,
            ) -> ::core::result::Result<(), #runtime::RestoreError>;
        }
    })
}

fn method(stub: &Stub<'_>, method: &StubMethod<'_>) -> TokenStream {
    let (runtime, name, reply) = (&stub.runtime, name(method), &method.reply);
    let (docs, deprecated) = (method.docs(&[]), method.deprecated());
    let (parameters, at) = (method.parameters(), method.beside("at"));
    let receiver = match method.method.semantics {
        Semantics::Read => quote!(&self),
        _ => quote!(&mut self, #at: &#runtime::Applied),
    };
    quote! {
        #docs
        #deprecated
        fn #name(
            #receiver,
            #parameters
        ) -> ::core::result::Result<#reply, #runtime::Status>;
    }
}

fn stream(stub: &Stub<'_>, method: &StubMethod<'_>) -> TokenStream {
    let (runtime, name, reply) = (&stub.runtime, name(method), &method.reply);
    let (parameters, position) = (method.parameters(), method.beside("position"));
    let comma = (!parameters.is_empty()).then(|| quote!(,));
    let docs = method.docs(&[
        "What comes next for a caller who has everything up to `position`: 0 for one who has nothing \
         yet, and larger with each message. Whichever replica is asked, the same follows a position, \
         so that the stream goes on at another replica when one fails."
            .into(),
        "Asked again when the state has changed.".into(),
    ]);
    let deprecated = method.deprecated();
    quote! {
        #docs
        #deprecated
        fn #name(
            &self,
            #parameters #comma
            #position: u64,
        ) -> ::core::result::Result<#runtime::Next<#reply>, #runtime::Status>;
    }
}

/// What the method of an rpc is called in the machine's trait.
pub(super) fn name(method: &StubMethod<'_>) -> Ident {
    let name = &method.method.rust_name;
    if OWN.contains(&name.as_str()) { ident(&format!("{name}_")) } else { ident(name) }
}
