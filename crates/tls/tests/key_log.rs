//! The lines of a key log suffice to open every packet of a connection.

mod common;

use common::{Authority, pair, shake};
use stubborn_core::transport::crypto::{DirectionalKeys, InitialCrypto, PacketKey};
use stubborn_core::transport::{ConnectionId, Side};
use stubborn_core::wire::VERSION;
use stubborn_tls::{
    KeyLog, LoggedSecrets, SecretKind, ServerTrust, TlsClient, TlsServer, keys_of_initial,
    keys_of_secret, next_secret,
};

fn log_file(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("stubborn-key-log-{}-{name}", std::process::id()))
}

fn opens(with: &dyn PacketKey, sealer: &dyn PacketKey) -> bool {
    let mut packet = b"some frames".to_vec();
    packet.resize(packet.len() + sealer.tag_len(), 0);
    sealer.seal(7, b"header", &mut packet);
    with.open(7, b"header", &mut packet) == Ok(11)
}

fn masks_alike(a: &DirectionalKeys, b: &DirectionalKeys) -> bool {
    let masked = |keys: &DirectionalKeys| {
        let (mut first, mut number) = (0x40, [0; 4]);
        keys.header.protect(&[9; 16], &mut first, &mut number);
        (first, number)
    };
    masked(a) == masked(b)
}

#[test]
fn the_lines_open_handshake_packets_and_those_of_each_key_phase() {
    let file = log_file("opens");
    let log = KeyLog::to_file(&file).unwrap();
    let authority = Authority::new("ours");
    let client = TlsClient::builder(authority.trust()).key_log(log).build().unwrap();
    let server = TlsServer::builder(authority.issue(&["server.test"])).build().unwrap();
    let (mut client, server) = shake(&client, &server).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();

    let random = text.split(' ').nth(1).expect("a line").to_owned();
    let random: [u8; 32] = std::array::from_fn(|i| {
        u8::from_str_radix(&random[2 * i..2 * i + 2], 16).expect("hex digits")
    });
    let logged = LoggedSecrets::parse(&text);
    // The default suite.
    let keys = |kind| keys_of_secret(0x1301, logged.find(&random, kind).unwrap()).unwrap();
    let (ours, theirs) = (client.handshake.take().unwrap(), server.handshake.unwrap());
    assert!(opens(&*keys(SecretKind::ClientHandshake).packet, &*ours.local.packet));
    assert!(opens(&*keys(SecretKind::ServerHandshake).packet, &*theirs.local.packet));
    let (ours, theirs) = (client.data.take().unwrap(), server.data.unwrap());
    assert!(opens(&*keys(SecretKind::ClientData).packet, &*ours.local.packet));
    assert!(opens(&*keys(SecretKind::ServerData).packet, &*theirs.local.packet));
    assert!(masks_alike(&keys(SecretKind::ServerData), &theirs.local));
    assert!(!opens(&*keys(SecretKind::ClientData).packet, &*theirs.local.packet));

    let mut secret = logged.find(&random, SecretKind::ClientData).unwrap().to_vec();
    for _ in 0..3 {
        let (local, _) = client.session.next_data_keys();
        secret = next_secret(0x1301, &secret).unwrap().to_vec();
        assert!(opens(&*keys_of_secret(0x1301, &secret).unwrap().packet, &*local));
    }
}

#[test]
fn the_keys_of_initial_packets_are_those_of_both_ends() {
    let (client, _) = pair();
    let destination = ConnectionId::from([3; 8]);
    let theirs = client.initial_keys(VERSION, &destination, Side::Client);
    let [of_client, of_server] = keys_of_initial(&destination);
    assert!(opens(&*of_client.packet, &*theirs.local.packet));
    assert!(opens(&*theirs.remote.packet, &*of_server.packet));
    assert!(masks_alike(&of_server, &theirs.remote));
}

#[test]
fn nothing_is_logged_unless_it_is_asked_for_and_both_ends_log_the_same() {
    let (client, server) = pair();
    shake(&client, &server).unwrap();

    let (one, two) = (log_file("client"), log_file("server"));
    let authority = Authority::new("ours");
    let client = TlsClient::builder(ServerTrust::Roots(authority.roots()))
        .key_log(KeyLog::to_file(&one).unwrap())
        .build()
        .unwrap();
    let server = TlsServer::builder(authority.issue(&["server.test"]))
        .key_log(KeyLog::to_file(&two).unwrap())
        .build()
        .unwrap();
    shake(&client, &server).unwrap();
    let lines = |file| {
        let text = std::fs::read_to_string(file).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&one), lines(&two));
    assert_eq!(lines(&one).len(), 5, "two secrets each of handshake and data, and the exporter's");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&one).unwrap().permissions().mode() & 0o077, 0);
    }
    [one, two].iter().for_each(|file| std::fs::remove_file(file).unwrap());
}
