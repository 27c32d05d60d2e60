//! Reads what Slurm's commands print, in the formats that we ask them for. Owns these formats and their readers.

use crate::record::{Exit, JobRecord, Node, Partition, accounts, gpus};

/// Columns of squeue and their widths. A comment is the last one: it may hold anything.
pub(crate) const QUEUE: &str =
    "JobID:16,ArrayJobID:16,State:20,Reason:64,exit_code:12,EndTime:24,Partition:64,NodeList:512,Comment:512";
/// Columns of sacct.
pub(crate) const ACCOUNTED: &str = "JobIDRaw,JobID,State,ExitCode,End,Partition,NodeList";

const WIDTHS: [usize; 9] = [16, 16, 20, 64, 12, 24, 64, 512, 512];

/// The records of `squeue --Format`; lines of another shape are passed over.
pub(crate) fn queue(text: &str) -> Vec<JobRecord> {
    text.lines().filter_map(queue_line).collect()
}

fn queue_line(line: &str) -> Option<JobRecord> {
    let mut fields = Vec::with_capacity(WIDTHS.len());
    let mut rest = line;
    for width in WIDTHS {
        // Slurm counts bytes; a character that it cut in two ends the field.
        let mut at = width.min(rest.len());
        while !rest.is_char_boundary(at) {
            at -= 1;
        }
        fields.push(known(rest[..at].trim()));
        rest = &rest[at..];
    }
    let [id, array, state, reason, exit, end, partition, nodes, comment] = fields.try_into().ok()?;
    let id = id.parse().ok()?;
    Some(JobRecord {
        id,
        // The base of an array is named also by a job that is none.
        array: array.parse().unwrap_or(0),
        states: states(state),
        reason: if reason == "None" {
            String::new()
        } else {
            reason.to_owned()
        },
        exit: exit.parse().map_or(Exit::default(), Exit::of_status),
        nodes: nodes.to_owned(),
        comment: comment.to_owned(),
        user: String::new(),
        partition: partition.to_owned(),
        end: end.parse().ok().filter(|&at| at > 0),
    })
}

/// A field, empty where Slurm has no value for it.
fn known(field: &str) -> &str {
    if matches!(field, "N/A" | "(null)" | "Unknown" | "NONE" | "n/a") {
        ""
    } else {
        field
    }
}

/// `CANCELLED by 1000` is CANCELLED; what follows is no state.
fn states(text: &str) -> Vec<String> {
    text.split_whitespace().next().map(str::to_owned).into_iter().collect()
}

/// The records of `sacct --parsable2`.
pub(crate) fn accounted(text: &str) -> Vec<JobRecord> {
    text.lines().filter_map(accounted_line).collect()
}

fn accounted_line(line: &str) -> Option<JobRecord> {
    let fields: Vec<&str> = line.split('|').map(|field| known(field.trim())).collect();
    let [raw, id, state, exit, end, partition, nodes] = fields.try_into().ok()?;
    Some(JobRecord {
        id: raw.parse().ok()?,
        array: id.split_once('_').and_then(|(base, _)| base.parse().ok()).unwrap_or(0),
        states: states(state),
        reason: by_whom(state),
        exit: code_and_signal(exit),
        nodes: nodes.to_owned(),
        comment: String::new(),
        user: String::new(),
        partition: partition.to_owned(),
        end: end.parse().ok().filter(|&at| at > 0),
    })
}

/// `by 1000` of `CANCELLED by 1000`, kept as the reason.
fn by_whom(state: &str) -> String {
    state
        .split_once(" by ")
        .map_or(String::new(), |(_, user)| format!("by {user}"))
}

fn code_and_signal(text: &str) -> Exit {
    let (code, signal) = text.split_once(':').unwrap_or((text, "0"));
    Exit {
        code: code.parse().unwrap_or(0),
        signal: signal.parse().unwrap_or(0),
    }
}

/// The value of `key` in a line of `scontrol show --oneliner`; empty where there is none.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let mut words = line.split_whitespace();
    let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map_or("", known)
}

/// The partitions of `scontrol show partition --oneliner`.
pub(crate) fn partitions(text: &str) -> Vec<Partition> {
    text.lines()
        .filter(|line| line.starts_with("PartitionName="))
        .map(partition)
        .collect()
}

fn partition(line: &str) -> Partition {
    Partition {
        name: field(line, "PartitionName").to_owned(),
        default: Some(field(line, "Default") == "YES"),
        state: field(line, "State").to_ascii_uppercase(),
        max_nodes: field(line, "MaxNodes").parse().ok(),
        max_minutes: minutes(field(line, "MaxTime")),
        default_minutes: minutes(field(line, "DefaultTime")),
        total_nodes: field(line, "TotalNodes").parse().unwrap_or(0),
        accounts: accounts(field(line, "AllowAccounts")),
    }
}

/// `1-00:00:00` or `00:10:00` in minutes; none for `UNLIMITED`.
fn minutes(text: &str) -> Option<u32> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let mut parts = clock.split(':').map(|part| part.parse::<u32>().ok());
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let hours = days.parse::<u32>().ok()?.checked_mul(24)?.checked_add(hours)?;
    hours.checked_mul(60)?.checked_add(minutes)
}

/// The nodes of `scontrol show node --oneliner`.
pub(crate) fn nodes(text: &str) -> Vec<Node> {
    text.lines()
        .filter(|line| line.starts_with("NodeName="))
        .map(node)
        .collect()
}

fn node(line: &str) -> Node {
    let list = |text: &str, by: char| -> Vec<String> {
        text.split(by)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let cpus = [field(line, "CPUEfctv"), field(line, "CPUTot")];
    Node {
        name: field(line, "NodeName").to_owned(),
        // `IDLE*` does not answer; `IDLE+DRAIN` is two words.
        states: list(
            &field(line, "State").replace(['*', '~', '#', '!', '%', '$', '@', '^', '-'], ""),
            '+',
        ),
        cpus: cpus.iter().find_map(|text| text.parse().ok()).unwrap_or(0),
        memory_mib: field(line, "RealMemory").parse().unwrap_or(0),
        gpus: gpus(field(line, "Gres")),
        partitions: list(field(line, "Partitions"), ','),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridgehead_backend::JobState;

    #[test]
    fn widths_are_those_that_squeue_is_asked_for() {
        let asked = QUEUE
            .split(',')
            .map(|column| column.split_once(':').map(|(_, width)| width.parse()));
        let asked: Vec<usize> = asked.map(|width| width.expect("a width").expect("a number")).collect();
        assert_eq!(asked, WIDTHS);
    }

    #[test]
    fn a_line_of_squeue_is_cut_by_widths() {
        let cells = [
            "3",
            "2",
            "RUNNING",
            "None",
            "0",
            "1795624750",
            "main",
            "n[1-2]",
            "bridgehead:a b/1 | \u{e9}",
        ];
        let line: String = cells
            .iter()
            .zip(WIDTHS)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let record = queue(&line).pop().expect("one record");
        assert_eq!((record.id, record.array, record.state()), (3, 2, JobState::Running));
        assert_eq!((record.reason.as_str(), record.nodes.as_str()), ("", "n[1-2]"));
        assert_eq!(record.comment, "bridgehead:a b/1 | \u{e9}");
        assert_eq!(record.end, Some(1_795_624_750));
        assert_eq!(queue("squeue: error: something\n\n"), []);
    }

    #[test]
    fn a_line_of_sacct_is_cut_by_bars() {
        let text = "7|5_2|CANCELLED by 1000|0:15|1795624750|main|n1\n8|8|FAILED|3:0|Unknown||None assigned\nodd\n";
        let records = accounted(text);
        assert_eq!(records.len(), 2);
        assert_eq!(
            (records[0].array, records[0].word(), records[0].exit.signal),
            (5, "CANCELLED", 15)
        );
        assert_eq!(records[0].reason, "by 1000");
        assert_eq!((records[1].exit.code, records[1].end), (3, None));
    }

    #[test]
    fn partitions_and_nodes_are_read_from_scontrol() {
        let text = "PartitionName=main Default=YES DefaultTime=00:10:00 MaxNodes=UNLIMITED MaxTime=1-00:00:00 State=UP TotalNodes=3 AllowAccounts=physics,chemistry";
        let found = partitions(text).pop().expect("one partition");
        assert_eq!(
            (found.default, found.max_nodes, found.max_minutes),
            (Some(true), None, Some(1440))
        );
        assert_eq!(
            (found.default_minutes, found.total_nodes, found.state.as_str()),
            (Some(10), 3, "UP")
        );
        assert_eq!(found.accounts, ["physics", "chemistry"]);
        let text = "NodeName=n1 CPUEfctv=8 CPUTot=8 Gres=gpu:2(S:0-1) OS=Linux 6 State=X RealMemory=16000 State=IDLE+DRAIN Partitions=main,low";
        let node = nodes(text).pop().expect("one node");
        assert_eq!((node.cpus, node.memory_mib, node.gpus_of(None)), (8, 16_000, 2));
        assert_eq!(node.partitions, ["main", "low"]);
    }
}
