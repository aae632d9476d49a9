//! Two ends of a handshake in memory, and certificates of many kinds.
#![allow(dead_code, reason = "each test program uses a part")]

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use stubborn_core::transport::crypto::{ClientTls, KeyChange, Keys, ServerTls, TlsSession};
use stubborn_core::transport::{Side, TransportError};
use stubborn_core::wire::VERSION;
use stubborn_tls::{Identity, Roots, ServerTrust, TlsClient, TlsServer};

/// One end: its session and the keys that it has been handed.
pub(crate) struct End {
    pub(crate) session: Box<dyn TlsSession>,
    pub(crate) handshake: Option<Keys>,
    pub(crate) data: Option<Keys>,
}

impl End {
    pub(crate) fn new(session: Box<dyn TlsSession>) -> Self {
        Self { session, handshake: None, data: None }
    }

    /// Everything that this end has to say now, apart for each space.
    pub(crate) fn speak(&mut self) -> Vec<Vec<u8>> {
        let mut spaces = vec![Vec::new()];
        loop {
            let out = spaces.last_mut().unwrap();
            let before = out.len();
            match self.session.write_handshake(out) {
                Some(KeyChange::Handshake(keys)) => self.handshake = Some(keys),
                Some(KeyChange::Data(keys)) => self.data = Some(keys),
                None if out.len() == before => break,
                None => continue,
            }
            spaces.push(Vec::new());
        }
        spaces.retain(|bytes| !bytes.is_empty());
        spaces
    }

    /// Hears what the other end said, in pieces of at most `piece` bytes.
    pub(crate) fn hear(&mut self, spaces: &[Vec<u8>], piece: usize) -> Result<(), TransportError> {
        spaces
            .iter()
            .flat_map(|bytes| bytes.chunks(piece))
            .try_for_each(|bytes| self.session.read_handshake(bytes))
    }
}

/// Starts both ends, the parameters being `client` and `server`.
pub(crate) fn start(client: &TlsClient, server: &TlsServer, name: &str) -> (End, End) {
    let client = ClientTls::start(client, VERSION, name, b"client").expect("a usable name");
    let server = ServerTls::start(server, VERSION, b"server").expect("a usable server");
    (End::new(client), End::new(server))
}

/// Carries bytes in pieces of at most `piece` until both ends are silent, or one fails.
pub(crate) fn carry(
    client: &mut End,
    server: &mut End,
    piece: usize,
) -> Result<(), (Side, TransportError)> {
    loop {
        let from_client = client.speak();
        server.hear(&from_client, piece).map_err(|e| (Side::Server, e))?;
        let from_server = server.speak();
        client.hear(&from_server, piece).map_err(|e| (Side::Client, e))?;
        if from_client.is_empty() && from_server.is_empty() {
            return Ok(());
        }
    }
}

/// A whole handshake with the name "server.test".
pub(crate) fn shake(
    client: &TlsClient,
    server: &TlsServer,
) -> Result<(End, End), (Side, TransportError)> {
    let (mut c, mut s) = start(client, server, "server.test");
    carry(&mut c, &mut s, 1_100)?;
    Ok((c, s))
}

/// A certificate authority of a test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_der(vec![self.certificate.clone()]).unwrap()
    }

    pub(crate) fn trust(&self) -> ServerTrust {
        ServerTrust::Roots(self.roots())
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Identity::from_der(vec![certificate], key.serialize_der()).unwrap()
    }

    /// Valid until the end of 2020.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |params| params.not_after = date_time_ymd(2020, 12, 31))
    }

    /// A chain of at least `bytes` bytes.
    pub(crate) fn issue_large(&self, name: &str, bytes: usize) -> Identity {
        self.issue_with(&[name], |params| {
            let filler = (0..bytes / 64).map(|n| format!("{n:060}.test").try_into().unwrap());
            params.subject_alt_names.extend(filler.map(SanType::DnsName));
        })
    }
}

/// A server for "server.test" and a client that trusts it.
pub(crate) fn pair() -> (TlsClient, TlsServer) {
    let authority = Authority::new("authority");
    let identity = authority.issue(&["server.test"]);
    let client = TlsClient::builder(authority.trust()).build().unwrap();
    (client, TlsServer::builder(identity).build().unwrap())
}
