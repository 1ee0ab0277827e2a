"""How long the runtime waits, for everything that it waits for: every wait has a deadline, and all of them stand here.

In seconds, the shortest first. Each says what ends when it has passed, and which others it must outlast; the tests
hold them to that. Two promises follow from them:

- A lost device is noticed within `NOTICED_S`. One whose process ends closes its connections, which shows at once. One
  that hangs, or that no packet reaches any more, says nothing: `SILENCE_S` after its last heartbeat it counts as lost,
  which the head's next look at the clock finds, `TICK_S` later at most and `LATEST_TICK_S` while results come in
  without end. That is six heartbeats of `HEARTBEAT_S` that may be late before anybody is blamed.
  A link between two devices that both reach the head shows a little later, after 4/3 of `LINK_HEARTBEAT_S`, and then
  with the next heartbeat of the sender.
- A device whose head is gone is free again after `LEASE_S`: as long as it hosts stages it counts from the last answer
  to a heartbeat, before that from the head's last `RENEW_S`.

Users choose some of them (`Limits`); those stand here with their defaults.
"""

from __future__ import annotations

LINGER_S = 0.002
"""Head: an incomplete batch waits for more samples, while others are under way."""

OWNERS_AGAIN_S = 0.01
"""Between two looks at the system's table of connections, which may be read while it changes."""

FIRST_RECEIVE_S = 0.01
"""Head: as `RECEIVE_S`, at first: files may be small."""

TICK_S = 0.05
"""Head: between two looks at what is late. Outlasts `LINGER_S`."""

STATE_POLL_S = 0.05
"""Head: between the first questions to a device that gets its stages ready."""

SESSION_AGAIN_S = 0.05
"""Head: before the tracker is asked for another device with the same key, at first; twice as long each time."""

ACCEPT_AGAIN_S = 0.05
"""TLS server: before it accepts again, when the process is short of descriptors."""

UNPROVEN_S = 0.1
"""TLS server: for the oldest connection that has proved nothing to end, when there are too many of them."""

RECONNECT_S = 0.1
"""Stage link: before the first attempt to connect again."""

TRACKER_POLL_S = 0.1
"""Between two questions to the tracker whether a device is free."""

DEVICE_AGAIN_S = 0.2
"""Doctor: before the tracker is asked for another device with the same key."""

CLAIM_POLL_S = 0.2
"""Head: between two looks at which of its devices are to hear that it lives, while it waits for others."""

RECEIVE_S = 0.2
"""Head: for how long a device takes in files until it is asked again whether it is there. Well within `RENEW_S`."""

HOST_IDLE_S = 0.2
"""Stage host: between two looks whether it is to end, while nothing comes in."""

DELIVERY_TOLD_S = 0.25
"""Head: between two words to whoever wants to know how far devices have got with their files."""

HEARTBEAT_S = 0.25
"""Stage host: between two messages to the head that say how it is. Six must fit into `SILENCE_S`."""

LATEST_TICK_S = 0.3
"""Head: as `TICK_S`, while results come in faster than they are taken. With `SILENCE_S` within `NOTICED_S`."""

REFUSED_AGAIN_S = 0.3
"""Head: before a device that refused its match key is asked for again. Outlasts a registration with the tracker."""

SIGNALS_S = 0.5
"""Head: for how long a caller's thread waits in one go. Where another thread takes the signal of Ctrl-C,
Python's main thread hears of it when it next does something."""

LONGEST_STATE_POLL_S = 0.5
"""Head: as `STATE_POLL_S`, after many questions: each costs a small device something."""

LONGEST_SESSION_AGAIN_S = 0.5
"""Head: as `SESSION_AGAIN_S`, after several attempts."""

PROBE_S = 0.5
"""Head: between two looks whether lost devices are back."""

INTERRUPT_S = 0.5
"""Head: for an opening that was given up to end by itself, before the calls that it waits in are ended."""

LAST_HANDSHAKES_S = 0.5
"""Stage link: for the connections of sockets that were closed to end, before the ZAP handler that they ask does."""

LAST_WORDS_S = 0.5
"""Agent: for a stage host to say what it has done, before it is ended."""

DISCOVER_MORE_S = 1.0
"""Whoever looks for a tracker: for others to be announced once one was, and for the rest of what was half heard."""

CONNECT_GRACE_S = 1.0
"""Head: for TVM's client to return beyond the deadline of the call; and what must be left to try a device again."""

LONGEST_RECONNECT_S = 1.0
"""Stage link: as `RECONNECT_S`, after many attempts. Several must fit into `LINK_S`."""

MEASURE_S = 1.0
"""Head: between two looks at how fast devices and links are. Many fit into `DRIFT_S`."""

REPORT_S = 1.0
"""Stage host: between two messages to its agent. A multiple of `HEARTBEAT_S`."""

HEALTH_AGAIN_S = 1.0
"""Metrics: between two looks at the tracker, however often somebody asks."""

COUNTS_S = 1.0
"""Head: for each device to be heard again, so that counts hold all that was answered. Outlasts `HEARTBEAT_S`."""

ACCEPT_S = 1.0
"""TLS server: between two looks whether it is to end, where closing the listener wakes nobody."""

HEALTH_TRACKER_S = 1.5
"""Metrics: for the tracker to answer."""

LINK_HEARTBEAT_S = 1.5
"""Stage link: for the receiver's machine to answer ZeroMQ's heartbeat, of which three go out in this time. Besides the
way there and back, a broken link so shows after 4/3 of it; outlasts the frame that a heartbeat waits behind."""

SILENCE_S = 1.6
"""Head: without a heartbeat of a device for so long it is lost. Holds six of `HEARTBEAT_S`."""

NOTICED_S = 2.0
"""What is promised: a lost device is noticed within this."""

RETURN_S = 2.0
"""Head: for a device to stay after it came back, before the better plan is taken up again. Outlasts `SILENCE_S`, in
which it could be lost again unnoticed."""

UNDO_S = 2.0
"""Head: for an agent to be told that an opening failed."""

NEWCOMERS_S = 2.0
"""Head: between two looks at the tracker for devices that have come."""

STATUS_S = 2.0
"""`top`: for tracker and device to answer, each."""

AGENT_ANSWER_S = 2.0
"""Metrics: for the agent's own process to answer. Outlasts `LAST_WORDS_S`, during which it answers nothing."""

SETTLE_S = 2.0
"""ZAP handler: for the address of a refused peer to come to light, before it is reported without one."""

TRACKER_AGAIN_S = 2.0
"""Agent: before it tries again to reach its tracker."""

URGENT_PLAN_S = 2.0
"""Head: for the search for a plan, while nothing runs."""

RENEW_S = 2.5
"""Head: between two messages that keep a device before its stages run. Two in a row may be late in a `LEASE_S`."""

BACK_S = 3.0
"""Head: for a lost device to answer. Outlasts `NOTICED_S`."""

DIAL_S = 3.0
"""Tools: for one connection, and one message over it there and back."""

REPLACE_S = 3.0
"""Agent: for a stage host to begin with something else, at least, before it is ended."""

DISCOVER_S = 3.0
"""Whoever looks for a tracker: for one to be announced. Questions are repeated after 1 s, should one be lost."""

OPENING_S = 5.0
"""Head: what a plan is said to take to get ready beside another, until one has."""

PLAN_S = 5.0
"""Head: for the search for a plan beside what runs."""

CHANGE_OVER_S = 5.0
"""Head: for an agent to take part in a change from one plan to another."""

FLUSH_S = 5.0
"""TLS relay: for what was on its way when one side ended."""

FORGOTTEN_S = 5.0
"""Agent: for a head that waits and is late with its question, before it is not counted any more."""

HANDSHAKE_S = 5.0
"""For whoever connects to prove who it is: TLS, CURVE, and TVM's own handshake."""

JOIN_S = 5.0
"""For a thread of this process that was told to end. Outlasts what it may wait in: `BACK_S`."""

LINK_S = 5.0
"""Stage link: for one to a process that listens to be made; the machines may be busy. Outlasts several attempts of
`LONGEST_RECONNECT_S`, and is what a handshake may take."""

MANAGER_S = 5.0
"""Agent: for the process that answers its RPC sessions. Outlasts the end of two hosts, `LAST_WORDS_S` each."""

METRICS_S = 5.0
"""Metrics: for whoever asks to say what it wants, and to take the answer."""

HEAD_CHUNK_S = 5.0
"""Head: for a device to get a piece of a file, before another that has nothing else to do is sent it as well."""

PEER_CHUNK_S = 5.0
"""Agent: for another device to send a piece of a file, before the head is asked for it."""

PARENT_S = 5.0
"""TLS client process: between two looks whether the head still runs."""

RELEASE_S = 5.0
"""Head: for a device to be given back. Within `LEASE_S`, after which it is free anyway."""

STEP_S = 5.0
"""Doctor: for each step on the way to a device."""

TRACKER_S = 5.0
"""For the tracker to answer."""

TLS_CLIENT_S = 5.0
"""Head: for the TLS client process to answer, beyond the deadline of the connection."""

REGISTER_AGAIN_S = 8.0
"""TVM's RPC server: a device that was given out and not used registers anew after this; it cannot be set."""

ANNOUNCE_AGAIN_S = 10.0
"""Tracker and agent: between two looks whether the machine has the addresses that were announced."""

ATTEMPT_S = 10.0
"""Head: at its end, for openings under way to end. Outlasts `INTERRUPT_S`, `UNDO_S` and `CHANGE_OVER_S`."""

CONNECT_S = 10.0
"""Default of `--connect-timeout`: for a device to be found, and to be heard of. Outlasts `REGISTER_AGAIN_S`."""

ECHO_S = 10.0
"""Agent: without a message for so long it ends a link test: stages want the link. Outlasts `DIAL_S`."""

FREE_S = 10.0
"""Doctor: for a device to be free. Outlasts `REGISTER_AGAIN_S`."""

KILL_S = 10.0
"""Local cluster: for a process that was killed to be gone."""

LEASE_S = 10.0
"""Agent: without a word from its head for so long a device is free again. Outlasts `NOTICED_S`, so that a head that
lives never loses one that it has not given up, and four of `RENEW_S`."""

PAIRS_S = 10.0
"""Link measurement: for a device to be free. Outlasts `REGISTER_AGAIN_S`."""

RECONNECT_DEVICE_S = 10.0
"""Default of `--recover` without failover: a wireless link that drops, or a stage host that starts again."""

SAME_AGENT_S = 10.0
"""Head: for how long nothing but the same agent will do for one that was lost and is still registered. Outlasts
`REGISTER_AGAIN_S`."""

WAIT_S = 10.0
"""Default of `--wait`: for a device that another head has. Not less than `LEASE_S`, in which a dead head's ends."""

DRIFT_S = 30.0
"""Head: for how long a speed must have been another one before plans are made for that."""

TLS_CLIENT_START_S = 30.0
"""Head: for the TLS client process to start Python, on a small board."""

TRANSFER_S = 40.0
"""Doctor: for 16 MiB there and back."""

AGENT_START_S = 60.0
"""Local cluster: for agents to import TVM and register, on a busy small machine."""

LONGEST_RETURN_S = 60.0
"""Head: as `RETURN_S`, which doubles with each further loss of the device."""

HORIZON_S = 60.0
"""Default of `--horizon`: within this a change to another plan has to pay."""

RECOVER_S = 60.0
"""Default of `--recover` with failover: for something to run again after a loss. Outlasts `RECONNECT_DEVICE_S`."""

SPARE_HOST_S = 60.0
"""Agent: how long a host without stages is kept for whoever comes next."""

STAGE_S = 60.0
"""Default of `--timeout`: for one stage and one batch, and for one call to a device."""

LINK_TIMES_S = 90.0
"""Tools: for all the measurements of one link. Outlasts `TRANSFER_S`."""

FORGIVEN_S = 120.0
"""Head: losses of a device further apart than this do not count as one after another. Outlasts `LONGEST_RETURN_S`."""

MOST_MORE_S = 120.0
"""Agent: what a head may add to its lease while it cannot speak, waiting for a file to be checked."""

START_S = 120.0
"""Default of `--start-timeout`: for a device to start Python and import TVM, and again to load its stages."""

FORGET_SPEED_S = 300.0
"""Head: a device that no plan has used for so long is believed to be as fast as its target again."""

LONGEST_WAIT_S = 30 * 86400.0
"""What stands for "for ever" where Python's clock allows for less."""
