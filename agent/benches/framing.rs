//! Reading frames: payload is not touched, so what counts is how many frames there are.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sheath::wire::Endpoints;
use sheath::wire::flows::{Control, Item, LONGEST_DATA, Reader, data_header};

/// Frames in a stream.
const FRAMES: usize = 1024;

/// Reads a stream in pieces of so many bytes, and returns how many bytes of payload were in it.
fn read(reader: &mut Reader, stream: &[u8], piece: usize) -> usize {
    let mut payload = 0;
    for mut rest in stream.chunks(piece) {
        loop {
            let (used, item) = reader.next(rest).unwrap();
            match item {
                Item::Data(place) => payload += place.len(),
                // Ours leaves at once, so that the next flow may come.
                Item::Control(Control::Fin) => reader.sent_fin(),
                Item::Control(_) => {}
                Item::More => break,
            }
            rest = &rest[used..];
        }
    }
    payload
}

fn framing(criterion: &mut Criterion) {
    let open = Control::Open(Endpoints {
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: "192.0.2.2:443".parse().unwrap(),
    });
    let (open, fin) = (open.encode(), Control::Fin.encode());

    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for length in [1, 100, LONGEST_DATA] {
        let frame = [&data_header(length)[..], &vec![7; length]].concat();
        let stream = [open.as_ref(), &frame.repeat(FRAMES), fin.as_ref()].concat();
        let mut reader = Reader::of_client();
        // As records hand them over.
        group.bench_function(BenchmarkId::new("data", length), |bencher| {
            bencher.iter(|| assert_eq!(read(&mut reader, &stream, 16 * 1024), length * FRAMES));
        });
    }
    let flow = [open.as_ref(), &data_header(1), b"x", fin.as_ref()].concat();
    let stream = flow.repeat(FRAMES);
    let mut reader = Reader::of_client();
    group.bench_function("flows of one byte", |bencher| {
        bencher.iter(|| assert_eq!(read(&mut reader, &stream, 16 * 1024), FRAMES));
    });
    group.finish();
}

criterion_group!(benches, framing);
criterion_main!(benches);
