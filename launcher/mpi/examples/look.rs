//! Says which MPI programs need: `look PROGRAM...`.

use std::path::Path;

fn main() {
    for program in std::env::args_os().skip(1) {
        println!(
            "{:?}",
            bridgehead_mpi::look_at(Path::new(&program), |name| std::env::var_os(name))
        );
    }
}
