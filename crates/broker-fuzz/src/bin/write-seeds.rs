//! Writes the seeds of every target into `fuzz/corpus`, each into a file of its name. What a fuzzer has found lies
//! beside them, under names of its own, and is left alone.

#![forbid(unsafe_code)]

use std::path::Path;
use std::{fs, io};

use broker_fuzz::{CORPUS, TARGETS};

fn main() -> io::Result<()> {
    for target in TARGETS {
        let folder = Path::new(CORPUS).join(target.name);
        fs::create_dir_all(&folder)?;
        let seeds = (target.seeds)();
        for seed in &seeds {
            fs::write(folder.join(&seed.name), &seed.bytes)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}
