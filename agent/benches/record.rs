//! Sealing and opening records in place: 256 KiB at once, as a buffer of the largest size holds.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sheath::wire::record::{Cipher, ContentType, Keys, OVERHEAD, Opener, Sealer};

const BATCH: usize = 256 * 1024;
const SUITES: [(&str, Cipher); 3] = [
    ("AES-128-GCM", Cipher::Aes128Gcm),
    ("AES-256-GCM", Cipher::Aes256Gcm),
    ("ChaCha20-Poly1305", Cipher::ChaCha20Poly1305),
];
/// Bytes of content.
const SIZES: [usize; 3] = [64, 1024, 16 * 1024];

fn keys(cipher: Cipher) -> Keys {
    Keys::of(cipher, &vec![1; cipher.key_len()], &[2; 12], 0).unwrap()
}

/// Makes records of all slots.
fn seal_all(sealer: &mut Sealer, slots: &mut [u8], slot: usize) {
    for record in slots.chunks_exact_mut(slot) {
        sealer.seal(ContentType::ApplicationData, record).unwrap();
    }
}

/// Opens all records, and returns how many bytes were in them.
fn open_all(opener: &mut Opener, mut records: &mut [u8]) -> usize {
    let mut content = 0;
    while let Some((length, _)) = opener.open(records).unwrap() {
        content += length - OVERHEAD;
        records = &mut records[length..];
    }
    content
}

fn record(criterion: &mut Criterion) {
    for (name, cipher) in SUITES {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(BATCH as u64));
        for size in SIZES {
            let slot = size + OVERHEAD;
            let mut slots = vec![7; BATCH / size * slot];
            let mut sealer = Sealer::new(keys(cipher));
            group.bench_function(BenchmarkId::new("seal", size), |bencher| {
                bencher.iter(|| {
                    // More than a key may seal is sealed here.
                    if sealer.wants_rekey() {
                        sealer.rekey(keys(cipher));
                    }
                    seal_all(&mut sealer, &mut slots, slot);
                });
            });

            seal_all(&mut Sealer::new(keys(cipher)), &mut slots, slot);
            group.bench_function(BenchmarkId::new("open", size), |bencher| {
                bencher.iter_batched_ref(
                    || (Opener::of_server(keys(cipher)), slots.clone()),
                    |(opener, records)| assert_eq!(open_all(opener, records), BATCH),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, record);
criterion_main!(benches);
