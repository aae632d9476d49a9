//! Serves `grpc.testing.TestService`, against which gRPC's clients run their interop cases:
//! `cargo run --release --example interop -- ADDRESS`.
//!
//! The address is IP:PORT. Clients of gRPC may come with and without TLS. `--certificate FILE` writes
//! the certificate that they are to trust.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stubborn::grpc::Grpc;
use stubborn::{Call, CallContext, Code, Identity, ReplySender, Requests, Server, Status, reply};

#[allow(missing_docs)]
mod protos {
    ::stubborn::include_protos!();
}

use protos::grpc::testing::{
    BoolValue, EchoStatus, Empty, Payload, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse, TestService, TestServiceServer,
};

/// The largest payload that is made.
const LARGEST: i32 = 32 << 20;
const ECHO_EARLY: &str = "x-grpc-test-echo-initial";
const ECHO_LATE: &str = "x-grpc-test-echo-trailing-bin";

/// The service; it counts the unary calls that ran, and says so with each reply.
#[derive(Default)]
struct Tests {
    ran: AtomicU64,
}

fn payload(size: i32) -> Result<Option<Payload>, Status> {
    if !(0..=LARGEST).contains(&size) {
        return Err(Status::invalid_argument("there is no such size"));
    }
    let size = usize::try_from(size).expect("it was looked at");
    Ok(Some(Payload { body: vec![0; size], ..Payload::default() }))
}

/// Sends back the metadata that the tests look for.
fn echo(context: &CallContext) -> Result<(), Status> {
    let refuse = |_| Status::invalid_argument("the metadata cannot be sent back");
    if let Some(value) = context.metadata.get(ECHO_EARLY) {
        reply::early_metadata(ECHO_EARLY, value).map_err(refuse)?;
    }
    if let Some(value) = context.metadata.get(ECHO_LATE) {
        reply::metadata(ECHO_LATE, value).map_err(refuse)?;
    }
    Ok(())
}

fn end_as(asked: Option<&EchoStatus>) -> Result<(), Status> {
    match asked {
        Some(EchoStatus { code, message }) if *code != 0 => {
            let code = Code::from_number(u64::try_from(*code).unwrap_or(u64::MAX));
            Err(Status::new(code, message.clone()))
        }
        _ => Ok(()),
    }
}

/// Whether messages came compressed as they had to.
fn check_compression(expected: Option<&BoolValue>, context: &CallContext) -> Result<(), Status> {
    let compressed = context.metadata.get_str("grpc-encoding").is_some();
    match expected {
        Some(BoolValue { value: true }) if !compressed => {
            Err(Status::invalid_argument("the message is not compressed"))
        }
        _ => Ok(()),
    }
}

impl Tests {
    fn unary(&self, call: &Call<SimpleRequest>) -> Result<SimpleResponse, Status> {
        let ran = self.ran.fetch_add(1, Ordering::Relaxed) + 1;
        check_compression(call.expect_compressed.as_ref(), call.context())?;
        echo(call.context())?;
        reply::metadata("ran", ran.to_string()).expect("a good key");
        if let Some(compressed) = &call.response_compressed {
            reply::compress(compressed.value);
        }
        end_as(call.response_status.as_ref())?;
        let payload = payload(call.response_size)?;
        Ok(SimpleResponse { payload, ..SimpleResponse::default() })
    }
}

/// Sends what one request asks for.
async fn send_all(
    request: &StreamingOutputCallRequest,
    replies: &mut ReplySender<StreamingOutputCallResponse>,
) -> Result<(), Status> {
    for parameters in &request.response_parameters {
        if let Some(compressed) = &parameters.compressed {
            reply::compress(compressed.value);
        }
        if let Ok(pause @ 1..) = u64::try_from(parameters.interval_us) {
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        let payload = payload(parameters.size)?;
        replies.send(&StreamingOutputCallResponse { payload }).await?;
    }
    end_as(request.response_status.as_ref())
}

impl TestService for Tests {
    async fn empty_call(&self, call: Call<Empty>) -> Result<Empty, Status> {
        echo(call.context())?;
        Ok(Empty {})
    }

    async fn unary_call(&self, call: Call<SimpleRequest>) -> Result<SimpleResponse, Status> {
        self.unary(&call)
    }

    async fn cacheable_unary_call(
        &self,
        call: Call<SimpleRequest>,
    ) -> Result<SimpleResponse, Status> {
        self.unary(&call)
    }

    async fn streaming_output_call(
        &self,
        call: Call<StreamingOutputCallRequest>,
        mut replies: ReplySender<StreamingOutputCallResponse>,
    ) -> Result<(), Status> {
        echo(call.context())?;
        send_all(&call, &mut replies).await
    }

    async fn streaming_input_call(
        &self,
        call: Call<()>,
        mut requests: Requests<StreamingInputCallRequest>,
    ) -> Result<StreamingInputCallResponse, Status> {
        let mut size = 0i32;
        while let Some(request) = requests.message().await? {
            check_compression(request.expect_compressed.as_ref(), call.context())?;
            let bytes = request.payload.map_or(0, |payload| payload.body.len());
            size = size.saturating_add(i32::try_from(bytes).unwrap_or(i32::MAX));
        }
        Ok(StreamingInputCallResponse { aggregated_payload_size: size })
    }

    async fn full_duplex_call(
        &self,
        call: Call<()>,
        mut requests: Requests<StreamingOutputCallRequest>,
        mut replies: ReplySender<StreamingOutputCallResponse>,
    ) -> Result<(), Status> {
        echo(call.context())?;
        while let Some(request) = requests.message().await? {
            send_all(&request, &mut replies).await?;
        }
        Ok(())
    }

    async fn half_duplex_call(
        &self,
        call: Call<()>,
        mut requests: Requests<StreamingOutputCallRequest>,
        mut replies: ReplySender<StreamingOutputCallResponse>,
    ) -> Result<(), Status> {
        /// Requests that are held until all are here.
        const HELD: usize = 1_024;
        echo(call.context())?;
        let mut held = Vec::new();
        while let Some(request) = requests.message().await? {
            if held.len() == HELD {
                return Err(Status::resource_exhausted("too many requests"));
            }
            held.push(request);
        }
        for request in &held {
            send_all(request, &mut replies).await?;
        }
        Ok(())
    }

    async fn unimplemented_call(&self, _: Call<Empty>) -> Result<Empty, Status> {
        Err(Status::unimplemented("as its name says"))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut address, mut certificate) = (None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--certificate" => certificate = arguments.next(),
            _ => address = Some(argument),
        }
    }
    let address = address.ok_or("usage: interop [--certificate FILE] IP:PORT")?;
    let identity = Identity::self_signed(["localhost", "127.0.0.1", "::1"])?;
    if let Some(file) = certificate {
        std::fs::write(file, identity.certificate_pem())?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let pin = identity.fingerprint()?;
        let server = Server::bind(address)
            .identity(identity)
            .service(TestServiceServer::new(Tests::default()))
            .drain_timeout(Duration::from_secs(5))
            .grpc(Grpc::new().plain_too())
            .start()
            .await?;
        let at = server.local_addr();
        println!("grpc.testing.TestService on grpc://{at} and grpcs://{at}?pin={pin}");
        tokio::signal::ctrl_c().await?;
        server.drain().await;
        Ok(())
    })
}
