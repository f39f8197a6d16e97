//! The Hello path without the system calls: `cargo bench --package broker-benches --bench hello`.
#![allow(missing_docs, clippy::expect_used, clippy::panic, reason = "a bench is a program")]

use std::hint::black_box;
use std::time::Duration;

use broker_benches::{Scale, answer, handler, now, peer, request, request_body, request_body_for, settle};
use broker_core::admission::{PeerKey, RateLimit, RateLimiter};
use broker_core::hello::BackendHandoff;
use broker_core::time::Monotonic;
use broker_protocol::bytes::BytesMut;
use broker_protocol::{FrameDecoder, FrameView, HelloView, Version};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// From one service to a hundred thousand, from one peer to as many as are told apart.
const SCALES: [Scale; 4] = [
    Scale::SMALL,
    Scale { services: 100, peers: 1 },
    Scale { services: 100_000, peers: 1 },
    Scale { services: 1, peers: 65_536 },
];

fn decide(criterion: &mut Criterion) {
    let body = request_body();
    for scale in SCALES {
        let mut group =
            criterion.benchmark_group(format!("{} services, {} peers", scale.services, scale.peers));
        let mut out = Vec::new();

        let mut plain = handler(BackendHandoff::DialOnly, scale);
        let decoded = request(&body);
        group.bench_function("handle_request", |bencher| {
            bencher.iter(|| plain.handle_request(now(), peer(), black_box(&decoded)));
        });
        group.bench_function("bytes to bytes", |bencher| {
            bencher.iter(|| {
                out.clear();
                plain.handle_frame(now(), peer(), black_box(&body), &mut out);
            });
        });

        let mut issuing = handler(BackendHandoff::Plain, scale);
        group.bench_function("handle_request with a token", |bencher| {
            bencher.iter(|| {
                let reply = issuing.handle_request(now(), peer(), black_box(&decoded));
                settle(&mut issuing, reply);
            });
        });
        group.bench_function("bytes to bytes with a token", |bencher| {
            bencher.iter(|| {
                let request = request(black_box(&body));
                let reply = issuing.handle_request(now(), peer(), &request);
                out.clear();
                reply.encode(&request.echo, &mut out);
                settle(&mut issuing, reply);
            });
        });
        group.finish();
    }
}

/// Every Hello asks for another service and comes from another peer, so that nothing of it is in a cache
/// but what fits there anyway.
fn spread(criterion: &mut Criterion) {
    const SERVICES: usize = 100_000;
    const PEERS: u32 = 64_000;
    let scale = Scale { services: SERVICES, peers: PEERS };
    let mut handler = handler(BackendHandoff::DialOnly, scale);
    let bodies: Vec<_> = (1..SERVICES).map(|number| request_body_for(&format!("other-{number}"))).collect();
    let mut out = Vec::new();
    let mut turn = 0usize;
    criterion.bench_function(
        "every Hello another of 100,000 services and 64,000 peers/bytes to bytes",
        |bencher| {
            bencher.iter(|| {
                // Steps that are prime to the counts visit all of them, far apart.
                turn = turn.wrapping_add(1);
                let body = &bodies[turn.wrapping_mul(61_987) % bodies.len()];
                let peer =
                    PeerKey::new(1000, Some(5_000 + (turn.wrapping_mul(40_503) % PEERS as usize) as u32));
                out.clear();
                handler.handle_frame(now(), peer, black_box(body), &mut out);
            });
        },
    );
}

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    let body = request_body();
    let frame = FrameView::decode(&body).expect("the fixture is a frame");
    group.bench_function("frame decode", |bencher| {
        bencher.iter(|| FrameView::decode(black_box(&body)).is_ok());
    });
    group.bench_function("Hello decode", |bencher| {
        bencher.iter(|| HelloView::decode(black_box(frame.payload)).is_ok());
    });
    group.bench_function("version", |bencher| bencher.iter(|| Version::parse(black_box("1.4.2"))));

    let mut limiter = RateLimiter::new(RateLimit::new(u32::MAX, 1));
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

/// Counts what one Hello in the middle of many allocates. Not a matter of time: it is the same in every run.
fn allocations(_: &mut Criterion) {
    let body = request_body();
    println!("allocations per Hello:");
    for (name, handoff) in [("plain", BackendHandoff::DialOnly), ("with a token", BackendHandoff::Plain)] {
        let mut handler = handler(handoff, Scale::SMALL);
        let mut out = Vec::new();
        const HELLOS: u64 = 1_000;
        (0..HELLOS).for_each(|_| answer(&mut handler, &body, &mut out));
        let counted = allocation_counter::measure(|| {
            (0..HELLOS).for_each(|_| answer(&mut handler, &body, &mut out));
        });
        println!("  {name}: {} in {HELLOS} Hellos, {} bytes", counted.count_total, counted.bytes_total);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = allocations, decide, spread, parts
}
criterion_main!(benches);
