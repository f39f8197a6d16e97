//! The Hello path without the system calls: `cargo bench --package broker-benches`.
#![allow(missing_docs, clippy::expect_used, clippy::panic, reason = "a bench is a program")]

use std::hint::black_box;

use broker_benches::{handler, peer, request_body};
use broker_core::admission::{PeerKey, RateLimit, RateLimiter};
use broker_core::hello::{BackendHandoff, Reply, Request};
use broker_core::time::{Monotonic, Now, UnixMillis};
use broker_protocol::bytes::BytesMut;
use broker_protocol::{FrameDecoder, Version};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

fn at(nanos: u64) -> Now {
    Now::new(Monotonic::from_nanos(nanos), UnixMillis::new(1_700_000_000_000))
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hello");
    let body = request_body();

    let mut decided = handler(BackendHandoff::DialOnly);
    let Ok(Request::Hello(request)) = Request::decode(&body) else { panic!("the fixture is a Hello") };
    group.bench_function("decision", |bencher| {
        bencher.iter(|| decided.handle_request(at(1), peer(), black_box(&request)));
    });

    let mut answered = handler(BackendHandoff::DialOnly);
    let mut out = Vec::new();
    group.bench_function("bytes to bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            answered.handle_frame(at(1), peer(), black_box(&body), &mut out);
        });
    });

    let mut issuing = handler(BackendHandoff::Accepts);
    group.bench_function("bytes to bytes with a token", |bencher| {
        bencher.iter(|| {
            let Ok(Request::Hello(request)) = Request::decode(black_box(&body)) else { return };
            let reply = issuing.handle_request(at(1), peer(), &request);
            out.clear();
            reply.encode(&request.echo, &mut out);
            // Gives the place back, as an acknowledgement would.
            if let Reply::Negotiated(negotiation) = reply {
                assert!(negotiation.token.is_some());
                issuing.handoffs().revoke(negotiation.connection_id);
            }
        });
    });
    group.finish();
}

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    let body = request_body();
    group.bench_function("decode", |bencher| bencher.iter(|| Request::decode(black_box(&body)).is_ok()));
    group.bench_function("version", |bencher| bencher.iter(|| Version::parse(black_box("1.4.2"))));

    let mut limiter = RateLimiter::new(RateLimit::new(u32::MAX, u32::MAX));
    let mut pid = 0u32;
    group.bench_function("permit of one of 60,000 peers", |bencher| {
        bencher.iter(|| {
            pid = (pid + 1) % 60_000;
            limiter.check(Monotonic::from_nanos(1), PeerKey::new(1000, Some(pid + 1)))
        });
    });

    let wire = [&[1][..], &u32::try_from(body.len()).expect("short").to_le_bytes(), &body].concat();
    group.bench_function("framing", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(&wire[..]),
            |mut buffer| FrameDecoder::new().body(&mut buffer),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, decide, parts);
criterion_main!(benches);
