//! The Rust program of interop/programs. It does what interop/cpp/peer.cc does of Greet, Echo and Fail, with stock tonic and
//! without any security, at a UNIX socket: shared-altsd listen --http or connect --grpc is at the other end of that.
//!
//!     peer server PATH
//!     peer client PATH

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

// To prost the well-known wrappers are the types that they wrap.
type Text = String;
type Bytes = Vec<u8>;
type Boxed<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

fn header(metadata: &MetadataMap, name: &str) -> String {
    let all: Vec<_> = metadata.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

struct Greet;
impl UnaryService<Text> for Greet {
    type Response = Text;
    type Future = Boxed<Text>;
    fn call(&mut self, r: Request<Text>) -> Self::Future {
        let m = r.metadata();
        let answer = format!("{} {}", header(m, "altsd-peer"), header(m, "altsd-peer-uid"));
        Box::pin(async move { Ok(Response::new(answer)) })
    }
}

struct Fail;
impl UnaryService<Text> for Fail {
    type Response = Text;
    type Future = Boxed<Text>;
    fn call(&mut self, r: Request<Text>) -> Self::Future {
        let why = r.into_inner();
        Box::pin(async move {
            if why == "wait" {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let mut trailers = MetadataMap::new();
            trailers.insert("said", MetadataValue::try_from(why.as_str()).map_err(|_| Status::internal("not ASCII"))?);
            Err(Status::with_metadata(Code::FailedPrecondition, format!("no: {why}"), trailers))
        })
    }
}

struct Echo;
impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Boxed<Self::ResponseStream>;
    fn call(&mut self, r: Request<Streaming<Bytes>>) -> Self::Future {
        let back: Self::ResponseStream = Box::pin(r.into_inner());
        Box::pin(async move { Ok(Response::new(back)) })
    }
}

#[derive(Clone)]
struct Interop;

impl NamedService for Interop {
    const NAME: &'static str = "sharedaltsd.interop.Interop";
}

impl tower::Service<http::Request<Body>> for Interop {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, r: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let method = r.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "Greet" => Grpc::new(ProstCodec::<Text, Text>::default()).unary(Greet, r).await,
                "Fail" => Grpc::new(ProstCodec::<Text, Text>::default()).unary(Fail, r).await,
                "Echo" => {
                    Grpc::new(ProstCodec::<Bytes, Bytes>::default()).apply_max_message_size_config(Some(1 << 30), None).streaming(Echo, r).await
                }
                _ => Status::unimplemented(method).into_http(),
            })
        })
    }
}

async fn serve(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::UnixListener::bind(path)?;
    println!("port 0");
    let ended = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {}
    };
    let served = Server::builder().add_service(Interop).serve_with_incoming(UnixListenerStream::new(listener));
    tokio::select! { r = served => r?, _ = ended => () }
    Ok(())
}

/// The sizes of the messages of "echo N M", as interop/cpp/peer.cc has them.
fn sizes(n: u64, largest: u64) -> impl Iterator<Item = u64> {
    let mut random = 0u64;
    (0..n).map(move |i| match i {
        0 => largest,
        1 => 1,
        _ => {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            1 + (random >> 32) % largest.min(1 << (random >> 59))
        }
    })
}

fn pattern(at: u64, n: u64) -> Bytes {
    (at..at + n).map(|i| ((i >> 8) ^ i) as u8).collect()
}

fn method(name: &str) -> http::uri::PathAndQuery {
    format!("/{}/{name}", Interop::NAME).parse().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

struct Client(Channel);

impl Client {
    async fn grpc(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut g = tonic::client::Grpc::new(self.0.clone()).max_decoding_message_size(1 << 30);
        g.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(g)
    }

    async fn text(&self, name: &str, value: &str, forged: bool, timeout: Duration) -> Result<String, Status> {
        let mut r = Request::new(value.to_owned());
        r.set_timeout(timeout);
        if forged {
            for name in ["altsd-peer", "altsd_peer", "altsd-peer-uid", "altsd.peer"] {
                r.metadata_mut().append(name, MetadataValue::from_static("root@beta"));
            }
        }
        let answer = self.grpc().await?.unary(r, method(name), ProstCodec::<Text, Text>::default()).await?;
        Ok(answer.into_inner())
    }

    async fn echo(&self, n: u64, largest: u64) -> Result<String, Status> {
        let (send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut at = 0;
            for size in sizes(n, largest) {
                if send.send(pattern(at, size)).await.is_err() {
                    return;
                }
                at += size;
            }
        });
        let mut r = Request::new(ReceiverStream::new(receive));
        r.set_timeout(MINUTE);
        let mut back = self.grpc().await?.streaming(r, method("Echo"), ProstCodec::<Bytes, Bytes>::default()).await?.into_inner();
        let mut digest = Sha256::new();
        while let Some(message) = back.next().await {
            let message: Bytes = message?;
            digest.update(format!("{}:", message.len()));
            digest.update(&message);
        }
        Ok(digest.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    async fn turns(&self, n: u64) -> Result<String, Status> {
        let (send, receive) = mpsc::channel(1);
        let turn = async |i| send.send(pattern(0, i)).await.map_err(|e| Status::internal(e.to_string()));
        turn(1).await?; // servers may send no headers before it
        let mut r = Request::new(ReceiverStream::new(receive));
        r.set_timeout(MINUTE);
        let mut back = self.grpc().await?.streaming(r, method("Echo"), ProstCodec::<Bytes, Bytes>::default()).await?.into_inner();
        for i in 1..=n {
            if i > 1 {
                turn(i).await?;
            }
            match back.next().await.transpose()? {
                Some(m) if m.len() as u64 == i => (),
                other => return Err(Status::internal(format!("turn {i}: {other:?}"))),
            }
        }
        drop(send);
        match back.next().await.transpose()? {
            None => Ok(n.to_string()),
            Some(_) => Err(Status::internal("a message too many")),
        }
    }

    async fn command(&self, line: &str) -> Result<String, Status> {
        let words: Vec<_> = line.split(' ').collect();
        let number = |i: usize| words.get(i).and_then(|w| w.parse().ok()).unwrap_or(0);
        match words[0] {
            "greet" => self.text("Greet", "", false, MINUTE).await,
            "forged" => self.text("Greet", "", true, MINUTE).await,
            "echo" => self.echo(number(1), number(2)).await,
            "turns" => self.turns(number(1)).await,
            "fail" => match self.text("Fail", "why", false, MINUTE).await {
                Ok(_) => Err(Status::internal("it does not fail")),
                Err(s) => Ok(format!("{} {} {}", s.code() as i32, s.message(), header(s.metadata(), "said"))),
            },
            "deadline" => match self.text("Fail", "wait", false, Duration::from_millis(300)).await {
                Ok(_) => Err(Status::internal("an answer")),
                Err(s) => Ok((s.code() as i32).to_string()),
            },
            _ => Err(Status::invalid_argument(line)),
        }
    }
}

async fn call(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client(Endpoint::from_shared(format!("unix://{path}"))?.connect_lazy());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match client.command(&line).await {
            Ok(a) => format!("ok {a}"),
            Err(s) => format!("error {} {}", s.code() as i32, s.message()),
        };
        println!("{}", answer.replace('\n', " "));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("server"), Some(path)) => serve(path).await,
        (Some("client"), Some(path)) => call(path).await,
        _ => Err("usage: peer server PATH | peer client PATH".into()),
    }
}
