//! Which variables of the agent's environment belong to the launcher that started the agent and would mislead a rank. Owns the
//! list with its reasons; who builds the environment asks.

/// Whole families, by how their names begin.
const PREFIXES: &[&str] = &[
    // Who serves PMI, and as which rank: MPICH's Hydra, Slurm's plug-ins, Cray's ALPS. MPICH aborts at a PMIx server that it cannot use.
    "PMI_",
    "PMI2_",
    "PMIX_",
    "ALPS_",
    "PALS_",
    // What mpirun and its daemons tell their own children. What a user sets for Open MPI begins with OMPI_MCA_ and stays.
    "OMPI_COMM_WORLD_",
    "OMPI_UNIVERSE_",
    "OMPI_MCA_orte_",
    "OMPI_MCA_ess",
    "OMPI_MCA_pmix",
    "OMPI_MCA_schizo",
    "PRTE_",
    "ORTE_",
    "OPAL_OUTPUT_",
    "PMI1_",
    // The channel of Hydra's proxies, and what they tell of the place of a rank.
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "MPIR_CVAR_CH3_INTERFACE_HOSTNAME",
    "MV2_COMM_WORLD_",
    "I_MPI_HYDRA_",
];

/// Single names. Open MPI 4 takes a pair of Slurm's step variables for a launch by srun and looks for a server that is not there.
const NAMES: &[&str] = &[
    "SLURM_STEP_ID",
    "SLURM_STEPID",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_STEP_RESV_PORTS",
    "SLURM_STEP_LAUNCHER_PORT",
    "SLURM_SRUN_COMM_HOST",
    "SLURM_SRUN_COMM_PORT",
    "SLURM_MPI_TYPE",
    "SLURM_PMI_FD",
    "SLURM_PMIX_MAPPING_SERV",
    "SLURM_PMIXP_ABORT_AGENT_PORT",
    "SLURM_TASK_PID",
    "SLURM_GTIDS",
    "OMPI_APP_CTX_NUM_PROCS",
    "OMPI_NUM_APP_CTX",
    "OMPI_FIRST_RANKS",
    "OMPI_FILE_LOCATION",
    "OMPI_COMMAND",
    "OMPI_ARGV",
    "MPISPAWN_ID",
    "MPIRUN_RANK",
    "MPIEXEC_HOSTNAME",
    "I_MPI_PMI_LIBRARY",
];

/// Whether a variable of this name is another launcher's and must not reach a rank.
///
/// What people set on purpose stays: `OMPI_MCA_*` (but for the few names above, by which Open MPI chooses how it was launched),
/// `MPICH_*`, `MPIR_CVAR_*`, `I_MPI_*`, `MV2_*`, `UCX_*`, `FI_*`, `PMIX_MCA_*`, and the `SLURM_*` that tell of the job.
#[must_use]
pub fn foreign(name: &str) -> bool {
    if name.starts_with("PMIX_MCA_") || name.starts_with("PRTE_MCA_") {
        return false;
    }
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_launchers_variables_go() {
        for name in [
            "PMI_FD",
            "PMI_RANK",
            "PMIX_NAMESPACE",
            "PMIX_SERVER_URI41",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_MCA_ess",
            "PRTE_LAUNCHED",
            "HYDI_CONTROL_FD",
            "MPI_LOCALRANKID",
            "SLURM_STEP_ID",
            "SLURM_PROCID",
            "OMPI_MCA_orte_hnp_uri",
        ] {
            assert!(foreign(name), "{name}");
        }
    }

    #[test]
    fn what_people_set_stays() {
        for name in [
            "OMPI_MCA_btl",
            "OMPI_MCA_pml",
            "MPICH_ASYNC_PROGRESS",
            "MPIR_CVAR_NOLOCAL",
            "I_MPI_FABRICS",
            "UCX_TLS",
            "PATH",
            "FI_PROVIDER",
            "SLURM_JOB_ID",
            "SLURM_CPUS_PER_TASK",
            "PMIX_MCA_gds",
            "OMP_NUM_THREADS",
            "PRTE_MCA_plm",
        ] {
            assert!(!foreign(name), "{name}");
        }
    }
}
