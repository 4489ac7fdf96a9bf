"""Bounds on everything that comes from outside; one frozen class, shown by `GET /api/v1/limits`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Each bound has its unit in its name."""

    path_bytes: int = 1024
    """A file's path, in UTF-8 bytes; one component may have 255."""
    files_per_session: int = 2_000
    """Files and folders in one session, trash included."""
    text_bytes: int = 2 * 1024 * 1024
    """A text file; larger ones are kept as blobs."""
    blob_bytes: int = 25 * 1024 * 1024
    """A binary file."""
    session_bytes: int = 250 * 1024 * 1024
    """All files of a session together, and what a zip may unpack to."""
    zip_entries: int = 2_000
    """Entries in an imported zip, files in an imported repository."""
    import_seconds: int = 60
    """Until an import from a Git address is given up."""
    imports_per_hour: int = 60
    """Imports from Git addresses by one person."""
    concurrent_imports: int = 4
    """Imports from Git addresses at once on this machine; each holds its files in memory."""
    body_bytes: int = 2 * 1024 * 1024
    """A request body that is not an upload."""
    frame_bytes: int = 4 * 1024 * 1024
    """One WebSocket message after authorisation; 64 KiB before."""
    document_bytes: int = 64 * 1024 * 1024
    """One document's log, snapshot and tail."""
    documents_per_socket: int = 256
    """Documents open on one Hocuspocus socket."""
    presence_clients_per_socket: int = 8
    """Awareness client ids that one connection may use in one document."""
    presence_bytes: int = 8 * 1024
    """One client's awareness state."""
    messages_per_second: int = 400
    """WebSocket messages per connection, over a ten-second window."""
    socket_bytes_per_second: int = 4 * 1024 * 1024
    """Bytes that one connection sends, over a ten-second window."""
    pending_bytes_per_socket: int = 16 * 1024 * 1024
    """Edits of one connection that are not acknowledged yet; it is not read from until some are."""
    person_messages_per_second: int = 1_200
    """WebSocket messages of one person, all connections to a server process together; beyond, they are read slower."""
    person_bytes_per_second: int = 8 * 1024 * 1024
    """Bytes of them."""
    document_messages_per_second: int = 2_000
    """Edits of one document in a server process; beyond, its writers are read slower."""
    document_bytes_per_second: int = 8 * 1024 * 1024
    """Bytes of them."""
    document_clients: int = 100_000
    """Yjs client ids that have ever written in one document; each costs every newcomer some bytes."""
    session_messages_per_second: int = 12_000
    """WebSocket messages of one session in a server process; beyond, its people are read slower."""
    session_bytes_per_second: int = 32 * 1024 * 1024
    """Bytes of them."""
    members_per_session: int = 500
    """People in one session."""
    links_per_session: int = 100
    """Live share links of one session."""
    versions_per_session: int = 200
    """Named versions of one session."""
    sessions_per_user: int = 200
    """Sessions that one person owns."""
    guests_per_hour: int = 60
    """New guests from one address."""
    log_ins_per_minute: int = 10
    """Log-in attempts per address and per account."""
    runs_per_minute: int = 30
    """Runs started by one person."""
    concurrent_runs: int = 4
    """Runs at once of one server; further ones wait in a queue. Runners in Redis say themselves how many they take."""
    queued_runs: int = 32
    """Runs that may wait; further ones are refused with a retry time."""
    run_wall_seconds: int = 60
    """A run's longest wall time (an interactive program waits for its input inside it)."""
    run_cpu_seconds: int = 20
    """A run's CPU time, all processes together."""
    run_memory_mb: int = 512
    """A run's memory, all processes together, in MiB."""
    run_processes: int = 64
    """A run's processes and threads."""
    run_disk_mb: int = 64
    """What a run may write, in MiB."""
    run_output_bytes: int = 1024 * 1024
    """What a run may print, both streams together."""
    run_files: int = 100
    """New and changed files that a run hands back."""
    run_files_bytes: int = 32 * 1024 * 1024
    """All of them together; a run that ends holds as much of the server's memory for a moment."""
    run_shown_bytes: int = 16 * 1024 * 1024
    """What stays with a run to be shown: figures, images, pages, tables."""
    session_shown_bytes: int = 64 * 1024 * 1024
    """What stays with all runs of a session; older runs' goes first."""
    build_wall_seconds: int = 60
    """How long a program may take to be compiled; then its run begins, with bounds of its own."""
    build_cpu_seconds: int = 60
    """CPU time of compiling, all processes together."""
    build_memory_mb: int = 1024
    """Memory of compiling, in MiB."""
    build_processes: int = 128
    """Processes and threads of compiling."""
    environment_mb: int = 512
    """The packages of one environment, in MiB."""
    environments_mb: int = 4096
    """All environments that are kept, in MiB; beyond it those that were used least lately go."""
    install_seconds: int = 300
    """How long packages may take to be installed."""
    cells_per_minute: int = 240
    """Cells that one person sends to an interpreter."""
    queued_cells: int = 100
    """Cells of one session that may wait."""
    cell_bytes: int = 64 * 1024
    """One cell's code."""
    cell_wall_seconds: int = 600
    """How long a cell may run; then it is interrupted, and the variables stay."""
    cell_output_bytes: int = 256 * 1024
    """What a cell may print; then it is interrupted too."""
    cell_shown_bytes: int = 16 * 1024 * 1024
    """Values and figures of a cell."""
    concurrent_interpreters: int = 16
    """Interpreters that this server keeps; each has the processes and disk of a run. A session has one at most."""
    interpreter_wall_seconds: int = 8 * 3600
    """How long an interpreter is kept altogether."""
    interpreter_cpu_seconds: int = 1_800
    """An interpreter's CPU time, all its cells and processes together."""
    interpreter_memory_mb: int = 1024
    """An interpreter's memory, all its processes together, in MiB."""
    interpreter_idle_seconds: int = 3_600
    """How long an interpreter is kept that nobody sends a cell."""
    terminals_per_session: int = 8
    """Open terminals of one session."""
    concurrent_terminals: int = 16
    """Open terminals on this machine; each has the memory, processes and disk of a run."""
    terminal_wall_seconds: int = 8 * 3600
    """How long a terminal stays open."""
    terminal_cpu_seconds: int = 600
    """A terminal's CPU time, all processes together."""
    terminal_idle_seconds: int = 900
    """How long a terminal stays open with nobody looking at it."""
