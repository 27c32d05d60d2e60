//! What one rank's process of a gang gets when it is started, and how its lines are told apart in the task's log. Owns no process.

use std::os::fd::OwnedFd;

/// What a rank's process gets beyond what every process of its gang gets.
#[derive(Debug)]
pub(crate) struct RankStart {
    /// Its number.
    pub rank: u32,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// The descriptor over which its MPI finds the others, and the variable that names it.
    pub fd: Option<OwnedFd>,
    pub fd_name: Option<String>,
    /// Processors that it is bound to; empty: it is not.
    pub processors: Vec<u32>,
    /// Its lines in the log begin with its number.
    pub named: bool,
}

/// Puts a rank's number before each line that it prints.
#[derive(Debug)]
pub(crate) struct RankLines {
    mark: String,
    /// Streams that stand in the middle of a line.
    open: Vec<&'static str>,
}

impl RankLines {
    pub(crate) fn new(rank: u32) -> Self {
        Self {
            mark: format!("[{rank}] "),
            open: Vec::new(),
        }
    }

    /// The text with the mark at the beginning of each line.
    pub(crate) fn mark(&mut self, stream: &'static str, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + self.mark.len() * 8);
        let mut inside = self.open.contains(&stream);
        for line in text.split_inclusive('\n') {
            if !inside {
                out.push_str(&self.mark);
            }
            out.push_str(line);
            inside = !line.ends_with('\n');
        }
        self.open.retain(|&open| open != stream);
        if inside {
            self.open.push(stream);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_bears_the_rank_once_however_it_comes() {
        let mut lines = RankLines::new(3);
        assert_eq!(lines.mark("stdout", "one\ntwo"), "[3] one\n[3] two");
        assert_eq!(lines.mark("stderr", "err\n"), "[3] err\n");
        assert_eq!(lines.mark("stdout", " more\nthree\n"), " more\n[3] three\n");
        assert_eq!(lines.mark("stdout", ""), "");
    }
}
