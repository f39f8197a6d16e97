#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| broker_fuzz::connection::target(bytes));
