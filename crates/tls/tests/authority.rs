//! An authority of one's own: who is let in by it, and who is not.

mod common;

use common::{carry, shake, start};
use stubborn_core::transport::Side;
use stubborn_tls::{
    Authority, ClientCertificates, ConfigError, Identity, ServerTrust, TlsClient, TlsServer, Usage,
};

fn server(authority: &Authority, identity: Identity) -> TlsServer {
    TlsServer::builder(identity)
        .client_certificates(ClientCertificates::Required(authority.roots()))
        .build()
        .unwrap()
}

fn client(authority: &Authority, identity: Identity) -> TlsClient {
    TlsClient::builder(ServerTrust::Roots(authority.roots())).identity(identity).build().unwrap()
}

fn node(authority: &Authority) -> Identity {
    authority.issue(["server.test", "127.0.0.1"], Usage::Node).unwrap().identity
}

#[test]
fn nodes_and_clients_of_one_authority_believe_each_other() {
    let authority = Authority::generate().unwrap();
    let server = server(&authority, node(&authority));
    let caller = authority.issue(["client"], Usage::Client).unwrap().identity;
    for identity in [node(&authority), caller.clone()] {
        let (mut c, mut s) = start(&client(&authority, identity), &server, "127.0.0.1");
        carry(&mut c, &mut s, 1_100).unwrap();
        assert!(!c.session.is_handshaking());
    }
    let (_, s) = shake(&client(&authority, caller.clone()), &server).unwrap();
    let proved = s.session.peer_identity().map(|id| id.key_digest);
    assert_eq!(proved, caller.key_digest());
}

#[test]
fn a_client_s_certificate_serves_nobody() {
    let authority = Authority::generate().unwrap();
    let caller = authority.issue(["server.test"], Usage::Client).unwrap().identity;
    let impostor = server(&authority, caller);
    let (side, error) = shake(&client(&authority, node(&authority)), &impostor).err().unwrap();
    assert_eq!(side, Side::Client, "{error}");
}

#[test]
fn an_authority_that_was_read_again_signs_for_the_same_trust() {
    let made = Authority::generate().unwrap();
    let read = Authority::from_pem(made.certificate_pem(), made.key_pem()).unwrap();
    let server = server(&made, node(&read));
    assert!(shake(&client(&made, node(&read)), &server).is_ok());
}

#[test]
fn two_authorities_do_not_know_each_other_and_their_keys_cannot_be_mixed() {
    let (ours, theirs) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let server = server(&ours, node(&ours));
    assert!(shake(&client(&ours, node(&theirs)), &server).is_err());
    let mixed = Authority::from_pem(ours.certificate_pem(), theirs.key_pem());
    assert_eq!(mixed.err(), Some(ConfigError::KeyMismatch));
    assert!(Authority::from_pem("", theirs.key_pem()).is_err());
    assert!(Authority::from_pem(ours.certificate_pem(), "").is_err());
}
