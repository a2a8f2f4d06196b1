//! A shop's receiver: a small HTTP/1.1 server that answers as it is told to, and keeps all it has heard. It checks signatures by a
//! computation of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// 200 after a while.
    Slow(Duration),
    Redirect(String),
    /// Nothing at all, for longer than anyone waits.
    Hang,
    /// The connection is closed without a word.
    Close,
    /// 200 and a body without an end.
    Flood,
    /// 200 and a body that never comes.
    Stall,
}

pub const OK: Answer = Answer::Status(200);

#[derive(Clone, Debug)]
pub struct Heard {
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Answered by a 2xx, as far as the receiver could.
    pub taken: bool,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn records(&self) -> Vec<Value> {
        self.json()["data"]["records"].as_array().cloned().unwrap_or_default()
    }

    /// Whether one of the signatures is of this secret, computed by hand after RFC 2104.
    pub fn is_signed(&self, secret: &str) -> bool {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let (id, at) = (&self.headers["webhook-id"], &self.headers["webhook-timestamp"]);
        let signed = format!("{id}.{at}.{}", self.body);
        let padded = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
        let inner = Sha256::digest([padded(0x36), signed.into_bytes()].concat());
        let outer = Sha256::digest([padded(0x5c), inner.to_vec()].concat());
        let expected = format!("v1,{}", BASE64.encode(outer));
        self.headers["webhook-signature"].split(' ').any(|signature| signature == expected)
    }
}

type Behave = Box<dyn FnMut(&Heard) -> Answer + Send>;

pub struct Receiver {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    behave: Arc<Mutex<Behave>>,
}

impl Receiver {
    pub fn new(behave: impl FnMut(&Heard) -> Answer + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), None, behave)
    }

    /// Over TLS, with a certificate and key of these files.
    pub fn over_tls(certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::at("127.0.0.1:0".parse().unwrap(), Some(Arc::new(config)), |_| OK)
    }

    pub fn at(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        behave: impl FnMut(&Heard) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, behave): (Arc<Mutex<Vec<Heard>>>, Arc<Mutex<Behave>>) =
            (Arc::default(), Arc::new(Mutex::new(Box::new(behave))));
        let receiver = Self { address, heard: Arc::clone(&heard), behave: Arc::clone(&behave) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (heard, behave, tls) = (Arc::clone(&heard), Arc::clone(&behave), tls.clone());
                // Errors: whoever asked has gone.
                std::thread::spawn(move || match tls {
                    None => serve(stream, &heard, &behave),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &heard, &behave)
                    }
                });
            }
        });
        receiver
    }

    /// From now on.
    pub fn behave(&self, behave: impl FnMut(&Heard) -> Answer + Send + 'static) {
        *self.behave.lock().unwrap() = Box::new(behave);
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The records that were told of in messages taken, of one type.
    pub fn told(&self, kind: &str) -> Vec<Value> {
        let taken = self.heard().into_iter().filter(|heard| heard.taken && heard.json()["type"] == kind);
        taken.flat_map(|heard| heard.records()).collect()
    }

    /// Their digests.
    pub fn digests(&self, kind: &str) -> BTreeSet<String> {
        self.told(kind).iter().map(|told| told["record"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until that is so.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}: {:?}", self.heard());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(stream: impl Read + Write, heard: &Mutex<Vec<Heard>>, behave: &Mutex<Behave>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut headers = BTreeMap::new();
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        assert!(line.starts_with("POST /"), "{line}");
        loop {
            line.clear();
            stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        stream.read_exact(&mut body).ok()?;
        let mut request = Heard { headers, body: String::from_utf8(body).unwrap(), taken: false };
        let answer = (behave.lock().unwrap())(&request);
        request.taken = matches!(answer, Answer::Status(200..300) | Answer::Slow(_) | Answer::Flood | Answer::Stall);
        // Before the answer: what was taken counts, whatever becomes of the answer.
        heard.lock().unwrap().push(request);
        let stream = stream.get_mut();
        match answer {
            Answer::Status(status) => write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nhi").ok()?,
            Answer::Slow(pause) => {
                std::thread::sleep(pause);
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
            }
            Answer::Redirect(to) => {
                write!(stream, "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").ok()?;
            }
            Answer::Stall => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").ok()?;
                stream.flush().ok()?;
                std::thread::sleep(Duration::from_secs(120));
            }
            Answer::Hang => std::thread::sleep(Duration::from_secs(120)),
            Answer::Close => return None,
            Answer::Flood => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").ok()?;
                while stream.write_all(&[b'x'; 65_536]).is_ok() {}
                return None;
            }
        }
        stream.flush().ok()?;
    }
}

/// A port that nobody listens on.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Whether anybody connects there within that time.
pub fn is_called(listener: &TcpListener, patience: Duration) -> bool {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    while start.elapsed() < patience {
        if listener.accept().is_ok_and(|(_stream, _): (TcpStream, _)| true) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
