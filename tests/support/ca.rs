//! A throw-away certificate authority, so that TLS in the tests is the real thing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TempDir;

/// An authority that nobody trusts unless told to, and its certificate in a file.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
    pem: PathBuf,
}

impl Ca {
    pub fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names to parse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "broker-exec throw-away test authority");
        let key = KeyPair::generate().expect("generate the authority's key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("sign the authority");
        let dir = TempDir::new();
        let pem = dir.write("ca.pem", issuer.pem());
        Ca { issuer, dir, pem }
    }

    /// The file with the certificate in PEM, for `--cacert` and `SSL_CERT_FILE`.
    pub fn pem_file(&self) -> &Path {
        &self.pem
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Lets a process of another user read the certificate.
    pub fn open_to_all(&self) {
        use std::os::unix::fs::PermissionsExt;
        self.dir.open_to_all();
        std::fs::set_permissions(&self.pem, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    }

    /// A server with a certificate of this authority for `localhost`, `127.0.0.1` and `names`. It
    /// takes a client that offers no ALPN or `http/1.1`, and refuses one that offers only others.
    pub fn server_config(&self, names: &[&str]) -> Arc<ServerConfig> {
        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        all.extend(names.iter().map(|&name| name.to_owned()));
        let key = KeyPair::generate().expect("generate the server's key");
        let leaf = CertificateParams::new(all)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .expect("sign the server's certificate");
        let chain = vec![leaf.der().clone(), self.issuer.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}
