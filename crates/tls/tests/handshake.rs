//! Handshakes in memory, through the traits that core sees: first what must fail.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Authority, End, carry, pair, shake, start};
use stubborn_core::transport::crypto::{ClientTls, Keys, PacketKey, ServerTls};
use stubborn_core::transport::{Side, TransportError};
use stubborn_core::wire::VERSION;
use stubborn_tls::rustls::crypto::aws_lc_rs::default_provider;
use stubborn_tls::rustls::pki_types::{ServerName, UnixTime};
use stubborn_tls::rustls::quic::{ClientConnection, Version};
use stubborn_tls::rustls::time_provider::TimeProvider;
use stubborn_tls::rustls::{self, ClientConfig, RootCertStore};
use stubborn_tls::{
    ClientCertificates, ConfigError, Environment, Identity, Roots, ServerTrust, TlsClient,
    TlsServer, key_digest, self_signed,
};

const BAD_CERTIFICATE: u8 = 42;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The error of a handshake that must fail at `side`.
fn failure(client: &TlsClient, server: &TlsServer, side: Side) -> TransportError {
    let (at, error) = shake(client, server).err().expect("the handshake must fail");
    assert_eq!(at, side, "{error}");
    error
}

fn server(identity: Identity) -> TlsServer {
    TlsServer::builder(identity).build().unwrap()
}

fn client(trust: ServerTrust) -> TlsClient {
    TlsClient::builder(trust).build().unwrap()
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let server = server(Authority::new("theirs").issue(&["server.test"]));
    let error = failure(&client(Authority::new("ours").trust()), &server, Side::Client);
    assert_eq!(error.code.alert(), Some(UNKNOWN_CA));
    assert!(error.reason.contains("not signed by an authority that is known here"), "{error}");
}

#[test]
fn a_server_of_another_name_is_refused_and_both_names_are_told() {
    let authority = Authority::new("ours");
    let server = server(authority.issue(&["other.test"]));
    let error = failure(&client(authority.trust()), &server, Side::Client);
    assert_eq!(error.code.alert(), Some(BAD_CERTIFICATE));
    for part in ["another name", "server.test", "other.test"] {
        assert!(error.reason.contains(part), "{error}");
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new("ours");
    let server = server(authority.issue_expired(&["server.test"]));
    let error = failure(&client(authority.trust()), &server, Side::Client);
    assert_eq!(error.code.alert(), Some(CERTIFICATE_EXPIRED));
    assert!(error.reason.contains("has expired"), "{error}");
}

#[test]
fn a_client_without_the_required_certificate_is_refused() {
    let authority = Authority::new("ours");
    let server = TlsServer::builder(authority.issue(&["server.test"]))
        .client_certificates(ClientCertificates::Required(authority.roots()))
        .build()
        .unwrap();
    let error = failure(&client(authority.trust()), &server, Side::Server);
    assert_eq!(error.code.alert(), Some(CERTIFICATE_REQUIRED));
    assert!(error.reason.contains("client sent no certificate"), "{error}");
}

#[test]
fn a_client_certificate_of_another_authority_is_refused_even_where_none_is_required() {
    let authority = Authority::new("ours");
    let roots = authority.roots();
    for clients in
        [ClientCertificates::Required(roots.clone()), ClientCertificates::Optional(roots)]
    {
        let server = TlsServer::builder(authority.issue(&["server.test"]))
            .client_certificates(clients)
            .build()
            .unwrap();
        let stranger = Authority::new("theirs").issue(&["client.test"]);
        let client = TlsClient::builder(authority.trust()).identity(stranger).build().unwrap();
        let error = failure(&client, &server, Side::Server);
        assert_eq!(error.code.alert(), Some(UNKNOWN_CA));
    }
}

#[test]
fn a_client_of_another_protocol_is_refused() {
    let (_, server) = pair();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("server.test").unwrap();
    for protocols in [vec![], vec![b"h3".to_vec()]] {
        let config = Arc::new(config.clone());
        let mut client =
            ClientConnection::new_with_alpn(config, Version::V1, name.clone(), vec![], protocols)
                .unwrap();
        let mut hello = Vec::new();
        client.write_hs(&mut hello);
        let mut server = ServerTls::start(&server, VERSION, b"server").unwrap();
        let error = server.read_handshake(&hello).expect_err("refused");
        assert_eq!(error.code.alert(), Some(NO_APPLICATION_PROTOCOL), "{error}");
        assert!(error.reason.contains("does not speak stubborn/1"), "{error}");
    }
}

#[test]
fn bytes_that_are_not_tls_are_refused() {
    let (client, server) = pair();
    let (mut c, mut s) = start(&client, &server, "server.test");
    assert!(s.session.read_handshake(&[0xff; 100]).is_err());
    c.speak();
    assert!(c.session.read_handshake(&[2, 0, 0, 2, 0, 0]).is_err());
}

#[test]
fn a_handshake_with_any_byte_altered_never_completes() {
    let (client, server) = pair();
    for position in [40, 100, 600] {
        let (mut c, mut s) = start(&client, &server, "server.test");
        let mut hello = c.speak();
        hello[0][position] ^= 1;
        let refused = s.hear(&hello, 1_100).is_err() || c.hear(&s.speak(), 1_100).is_err();
        assert!(refused, "byte {position}");
    }
}

#[test]
fn a_name_that_is_no_name_cannot_be_connected_to() {
    let (client, _) = pair();
    let error = client.start(VERSION, "not a name!", b"").err().expect("refused");
    assert!(error.reason.contains("neither a DNS name nor an IP address"));
}

#[test]
fn a_handshake_gives_both_ends_the_same_keys_parameters_and_identities() {
    let authority = Authority::new("ours");
    let (server_id, client_id) =
        (authority.issue(&["server.test"]), authority.issue(&["client.test"]));
    let server = TlsServer::builder(server_id.clone())
        .client_certificates(ClientCertificates::Required(authority.roots()))
        .build()
        .unwrap();
    let client = TlsClient::builder(authority.trust()).identity(client_id.clone()).build().unwrap();
    let (mut c, mut s) = start(&client, &server, "server.test");
    assert!(c.session.is_handshaking() && c.session.peer_identity().is_none());
    carry(&mut c, &mut s, 1_100).unwrap();

    assert!(!c.session.is_handshaking() && !s.session.is_handshaking());
    assert_eq!(c.session.peer_parameters(), Some(&b"server"[..]));
    assert_eq!(s.session.peer_parameters(), Some(&b"client"[..]));
    let seen = c.session.peer_identity().unwrap();
    assert_eq!(Some(seen.key_digest), server_id.key_digest());
    assert_eq!(seen.certificates, server_id.chain().collect::<Vec<_>>());
    let seen = s.session.peer_identity().unwrap();
    assert_eq!(Some(seen.key_digest), client_id.key_digest());

    let take = |keys: &mut Option<Keys>| keys.take().expect("keys were handed out");
    for (mine, theirs) in
        [(take(&mut c.handshake), take(&mut s.handshake)), (take(&mut c.data), take(&mut s.data))]
    {
        assert_fit(&*mine.local.packet, &*theirs.remote.packet);
        assert_fit(&*theirs.local.packet, &*mine.remote.packet);
        assert_mismatch(&*mine.local.packet, &*mine.remote.packet);
    }
}

/// What one key seals the other opens.
fn assert_fit(seal: &dyn PacketKey, open: &dyn PacketKey) {
    let mut payload = b"hello................".to_vec();
    seal.seal(5, b"header", &mut payload);
    let mut altered = payload.clone();
    assert!(open.open(5, b"other", &mut altered).is_err());
    assert_eq!(open.open(5, b"header", &mut payload), Ok(5));
    assert_eq!(&payload[..5], b"hello");
}

fn assert_mismatch(seal: &dyn PacketKey, open: &dyn PacketKey) {
    let mut payload = b"hello................".to_vec();
    seal.seal(5, b"header", &mut payload);
    assert!(open.open(5, b"header", &mut payload).is_err());
}

#[test]
fn keys_are_updated_in_step_and_old_ones_no_longer_fit() {
    let (client, server) = pair();
    let (mut c, mut s) = shake(&client, &server).unwrap();
    let mut old = c.data.take().unwrap().local.packet;
    for _ in 0..3 {
        let (c_local, c_remote) = c.session.next_data_keys();
        let (s_local, s_remote) = s.session.next_data_keys();
        assert_fit(&*c_local, &*s_remote);
        assert_fit(&*s_local, &*c_remote);
        assert_mismatch(&*old, &*s_remote);
        old = c_local;
    }
}

#[test]
fn a_client_hello_with_a_post_quantum_key_share_exceeds_a_datagram_and_works() {
    let (client, server) = pair();
    let (mut c, mut s) = start(&client, &server, "server.test");
    let hello = c.speak();
    assert!(hello[0].len() > 1_200, "{} bytes", hello[0].len());
    s.hear(&hello, 1).unwrap();
    carry(&mut c, &mut s, 1).unwrap();
    assert!(!c.session.is_handshaking());
}

#[test]
fn a_certificate_chain_of_six_kilobytes_works() {
    let authority = Authority::new("ours");
    let identity = authority.issue_large("server.test", 6 << 10);
    assert!(identity.chain().map(<[u8]>::len).sum::<usize>() >= 6 << 10);
    let (c, _) = shake(&client(authority.trust()), &server(identity)).unwrap();
    assert!(c.session.peer_identity().is_some());
}

#[test]
fn any_certificate_is_accepted_only_when_that_is_said_loudly_and_the_identity_is_still_told() {
    let identity = Authority::new("theirs").issue_expired(&["other.test"]);
    let digest = identity.key_digest();
    let client = client(ServerTrust::DangerouslyAcceptAnyCertificate);
    let (c, s) = shake(&client, &server(identity)).unwrap();
    assert_eq!(c.session.peer_identity().map(|id| id.key_digest), digest);
    assert_eq!(s.session.peer_identity(), None);
}

#[test]
fn a_self_signed_certificate_is_trusted_by_those_who_have_it_for_names_and_addresses() {
    let made = self_signed(["server.test", "127.0.0.1", "::1"]).unwrap();
    let server = server(made.identity.clone());
    let client = client(ServerTrust::Roots(made.roots()));
    for name in ["server.test", "127.0.0.1", "::1"] {
        let (mut c, mut s) = start(&client, &server, name);
        carry(&mut c, &mut s, 1_100).unwrap();
        assert!(!c.session.is_handshaking());
    }
    let again =
        Identity::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
    assert_eq!(again.key_digest(), made.identity.key_digest());
    assert!(Roots::from_pem(made.certificate_pem.as_bytes()).is_ok());
}

#[test]
fn a_second_connection_resumes_and_offers_early_data_once() {
    let authority = Authority::new("ours");
    let identity = authority.issue(&["server.test"]);
    let digest = identity.key_digest();
    let server = TlsServer::builder(identity).early_data(true).build().unwrap();
    let client = TlsClient::builder(authority.trust()).early_data(true).build().unwrap();

    let (mut c, mut s) = shake(&client, &server).unwrap();
    assert!(c.session.early_keys().is_none() && s.session.early_keys().is_none());
    assert_eq!(c.session.early_data_accepted(), Some(false));
    assert_eq!(s.session.early_data_accepted(), Some(false));

    let (mut c, mut s) = start(&client, &server, "server.test");
    let early = c.session.early_keys().expect("keys to send with");
    assert_eq!(c.session.peer_parameters(), Some(&b"server"[..]), "remembered");
    assert_eq!(c.session.early_data_accepted(), None);
    let hello = c.speak();
    s.hear(&hello, 1_100).unwrap();
    let taken = s.session.early_keys().expect("keys to receive with");
    assert_fit(&*early.packet, &*taken.packet);
    carry(&mut c, &mut s, 1_100).unwrap();
    assert_eq!(c.session.early_data_accepted(), Some(true));
    assert_eq!(s.session.early_data_accepted(), Some(true));
    assert_eq!(c.session.peer_identity().map(|id| id.key_digest), digest, "also when resumed");

    // The same ClientHello again: its ticket has been used.
    let mut replayed = End::new(ServerTls::start(&server, VERSION, b"server").unwrap());
    replayed.hear(&hello, 1_100).unwrap();
    assert!(replayed.session.early_keys().is_none());
    replayed.speak();
    assert_eq!(replayed.session.early_data_accepted(), Some(false));
}

#[test]
fn early_data_is_off_by_default() {
    let (client, server) = pair();
    shake(&client, &server).unwrap();
    let (mut c, _) = start(&client, &server, "server.test");
    assert!(c.session.early_keys().is_none());
}

#[derive(Debug)]
struct Stopped(u64);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

#[test]
fn certificates_are_judged_by_the_time_of_the_environment_and_nothing_is_resumed_there() {
    let at = |seconds| {
        Environment::deterministic(Arc::new(default_provider()), Arc::new(Stopped(seconds)))
    };
    let authority = Authority::new("ours");
    let identity = authority.issue_expired(&["server.test"]);
    // The summer of 2020.
    let server = TlsServer::builder(identity.clone())
        .early_data(true)
        .environment(at(1_593_600_000))
        .build()
        .unwrap();
    let client = TlsClient::builder(authority.trust())
        .early_data(true)
        .environment(at(1_593_600_000))
        .build()
        .unwrap();
    for _ in 0..2 {
        let (mut c, mut s) = start(&client, &server, "server.test");
        assert!(c.session.early_keys().is_none());
        carry(&mut c, &mut s, 1_100).unwrap();
    }
    let client = TlsClient::builder(authority.trust()).environment(at(1 << 31)).build().unwrap();
    failure(&client, &server, Side::Client);
}

#[test]
fn configurations_that_cannot_work_say_why() {
    let one = self_signed(["a.test"]).unwrap();
    let two = self_signed(["b.test"]).unwrap();
    let mixed = Identity::from_pem(one.certificate_pem.as_bytes(), two.key_pem.as_bytes()).unwrap();
    assert_eq!(TlsServer::builder(mixed).build().unwrap_err(), ConfigError::KeyMismatch);
    let pem = one.certificate_pem.as_bytes();
    assert_eq!(Identity::from_pem(pem, pem).unwrap_err(), ConfigError::NoPrivateKey);
    assert_eq!(Identity::from_pem(b"", pem).unwrap_err(), ConfigError::NoCertificate);
    assert_eq!(Roots::from_pem(b"nothing").unwrap_err(), ConfigError::NoCertificate);
    assert_eq!(Identity::from_der(vec![], vec![]).unwrap_err(), ConfigError::NoCertificate);
    let cut = &pem[..pem.len() / 2];
    assert!(matches!(Roots::from_pem(cut), Err(ConfigError::MalformedPem(_))));
    assert!(matches!(Roots::from_der(vec![vec![1, 2, 3]]), Err(ConfigError::Unusable(_))));
    assert!(matches!(self_signed(["\u{fc}"]), Err(ConfigError::Unusable(_))));
    assert_eq!(key_digest(b"not a certificate"), None);
}
