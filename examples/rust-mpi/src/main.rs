//! The heat equation on a square plate that is cold at its rim, on as many MPI ranks as it is started with: each has a block of rows
//! and gives its outer ones to its neighbours before each step. Owns the solver and its check against the solution that is known in
//! closed form; knows nothing of who started it. Rank 0 prints one line; a field that is wrong ends with the exit code 1.
//!
//! usage: plate [POINTS [STEPS]]

use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use std::f64::consts::PI;
use std::process::ExitCode;

/// Tags of rows on their way to lower and to higher ranks.
const UP: i32 = 1;
const DOWN: i32 = 2;

/// This rank's rows of the plate. Points on the rim are zero for ever and not kept; one more row on each side is a neighbour's, or the rim.
struct Block {
    columns: usize,
    rows: usize,
    /// Width of a cell, where a side of the plate is 1 long.
    cell: f64,
    /// `rows + 2` rows of `columns + 2` points each.
    points: Vec<f64>,
}

impl Block {
    /// The block of `rank` among `size` of a plate with `inner` points along each side, warm in its middle: sin(πx)·sin(πy).
    fn new(inner: usize, rank: usize, size: usize) -> Self {
        let (first, after) = (rank * inner / size, (rank + 1) * inner / size);
        let cell = 1.0 / (inner + 1) as f64;
        let mut block = Self {
            columns: inner,
            rows: after - first,
            cell,
            points: vec![0.0; (after - first + 2) * (inner + 2)],
        };
        for row in 1..=block.rows {
            let y = (first + row) as f64 * cell;
            for column in 1..=inner {
                let at = block.at(row, column);
                block.points[at] = (PI * column as f64 * cell).sin() * (PI * y).sin();
            }
        }
        block
    }

    fn width(&self) -> usize {
        self.columns + 2
    }

    fn at(&self, row: usize, column: usize) -> usize {
        row * self.width() + column
    }

    /// Gives the outer rows to the neighbours and takes theirs.
    fn exchange(&mut self, world: &SimpleCommunicator) {
        let (rank, size, width) = (world.rank(), world.size(), self.width());
        let (above, rest) = self.points.split_at_mut(width);
        let (own, below) = rest.split_at_mut(self.rows * width);
        let (first, last) = (&own[..width], &own[(self.rows - 1) * width..]);
        mpi::request::multiple_scope(4, |scope, requests| {
            if rank > 0 {
                let there = world.process_at_rank(rank - 1);
                requests.add(there.immediate_receive_into_with_tag(scope, above, DOWN));
                requests.add(there.immediate_send_with_tag(scope, first, UP));
            }
            if rank + 1 < size {
                let there = world.process_at_rank(rank + 1);
                requests.add(there.immediate_receive_into_with_tag(scope, below, UP));
                requests.add(there.immediate_send_with_tag(scope, last, DOWN));
            }
            requests.wait_all(&mut Vec::new());
        });
    }

    /// One explicit step: each point goes towards the mean of its four neighbours. `ratio` is the step over the square of the cell.
    fn step(&mut self, ratio: f64) {
        let (old, width) = (self.points.clone(), self.width());
        for row in 1..=self.rows {
            for column in 1..=self.columns {
                let at = self.at(row, column);
                let around = old[at - width] + old[at + width] + old[at - 1] + old[at + 1];
                self.points[at] = old[at] + ratio * (around - 4.0 * old[at]);
            }
        }
    }

    /// The largest difference from `decay` times the field at the start, which is the exact solution.
    fn error(&self, start: &Self, decay: f64) -> f64 {
        let inside = (1..=self.rows).flat_map(|row| (1..=self.columns).map(move |column| self.at(row, column)));
        inside
            .map(|at| (self.points[at] - decay * start.points[at]).abs())
            .fold(0.0, f64::max)
    }

    fn heat(&self) -> f64 {
        let rows = self.points.chunks(self.width()).skip(1).take(self.rows);
        rows.map(|row| row[1..=self.columns].iter().sum::<f64>()).sum::<f64>() * self.cell * self.cell
    }
}

/// A number from the command line, at least `least`.
fn argument(index: usize, default: usize, least: usize) -> Result<usize, String> {
    let Some(text) = std::env::args().nth(index) else {
        return Ok(default.max(least));
    };
    match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!(
            "{text}: a number of {least} or more is needed; usage: plate [POINTS [STEPS]]"
        )),
    }
}

fn main() -> ExitCode {
    let Some(universe) = mpi::initialize() else {
        eprintln!("MPI has been started in this process before");
        return ExitCode::FAILURE;
    };
    let world = universe.world();
    let (rank, size) = (world.rank() as usize, world.size() as usize);
    let (inner, steps) = match (argument(1, 64, size), argument(2, 500, 1)) {
        (Ok(inner), Ok(steps)) => (inner, steps),
        (Err(why), _) | (_, Err(why)) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let start = Block::new(inner, rank, size);
    let mut block = Block::new(inner, rank, size);
    let ratio = 0.2; // Explicit steps are stable up to 0.25.
    for _ in 0..steps {
        block.exchange(&world);
        block.step(ratio);
    }
    let time = ratio * block.cell * block.cell * steps as f64;
    let (mut error, mut heat) = (0.0, 0.0);
    let decay = (-2.0 * PI * PI * time).exp();
    world.all_reduce_into(&block.error(&start, decay), &mut error, SystemOperation::max());
    world.all_reduce_into(&block.heat(), &mut heat, SystemOperation::sum());
    if rank == 0 {
        println!("ranks {size} points {inner} steps {steps} time {time:.5} heat {heat:.6} error {error:.1e}");
    }
    if error < 1e-3 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
