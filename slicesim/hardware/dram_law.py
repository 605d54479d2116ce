"""How fast a DRAM channel delivers: streams, random reads, one read alone (hardware.md 1.2 to 1.4).

Closed forms out of timing parameters. What they leave out: writes between reads (bus turn-around), per-bank refresh,
WCK synchronisation of LPDDR5.
"""

from __future__ import annotations

from slicesim.hardware.dram_memory import DramMemory


def bus_share(memory: DramMemory) -> float:
    """Share of the peak that a stream gets between refreshes.

    Opening the next row hides behind reading this one (other bank), so it is 1 where neighbouring bursts alternate
    between bank groups. If a row is read in one group, bursts come every tCCD_L, except that the last few overlap
    with the first ones of the next row: as many as the controller sees ahead, less those that pass while that row
    opens. Row of n bursts: time = max(n burst, (n - ahead) tCCD_L), ahead = queue - 1 - tRCD / tCCD_L.
    """
    timing, burst = memory.timing, memory.burst_ns
    if memory.group_interleaved or memory.bank_groups == 1 or timing.ccd_long_ns <= burst:
        return 1.0
    bursts = memory.row_bytes / memory.burst_bytes
    ahead = max(0.0, memory.queue_bursts - 1 - timing.rcd_ns / timing.ccd_long_ns)
    return bursts * burst / max(bursts * burst, (bursts - ahead) * timing.ccd_long_ns)


def refresh_share(memory: DramMemory) -> float:
    """Share of time that refresh takes from a stream.

    Each rank refreshes once in tREFI and a stream is in one rank at a time: of R refreshes in tREFI it meets one on
    average, whatever R is, and loses tRTP + tRP + tRFC + tRCD.
    """
    return min(1.0, memory.timing.refresh_stall_ns / memory.timing.refi_ns)


def steady_share(memory: DramMemory) -> float:
    """Share of the peak that long streams get on average: the law for the engines, monotone in every parameter."""
    return bus_share(memory) * (1.0 - refresh_share(memory))


def steady_gbs(memory: DramMemory) -> float:
    """Average streaming rate of one channel."""
    return memory.peak_gbs * steady_share(memory)


def stream_ns(memory: DramMemory, size_bytes: int) -> float:
    """Time of one stream that starts just after a refresh of the last rank, on an otherwise idle channel.

    Ranks refresh in turn, one every tREFI / R, and the stream sweeps one rank after another, so which refreshes it
    meets is a matter of phase: a short stream through two ranks may meet none (0.999 of the peak in DRAMsim3), and
    four ranks lock into step. This walks from refresh to refresh. One that begins in the rank being read, or before
    the stream gets there, stalls it; the controller then reads up to ``ahead_rows`` of the next rank.
    """
    ranks, rate = memory.ranks, memory.peak_gbs * bus_share(memory)
    slot_ns, stall_ns = memory.timing.refi_ns / ranks, memory.timing.refresh_stall_ns
    blocked_until = [0.0] * ranks
    now, left, rank, here, ahead, slot = 0.0, float(size_bytes), 0, float(memory.sweep_bytes), 0.0, 1
    window = float(memory.ahead_rows * memory.row_bytes)
    while left > 1e-6:
        while slot * slot_ns <= now + 1e-9:
            who = (slot - 1) % ranks
            blocked_until[who] = max(blocked_until[who], slot * slot_ns) + stall_ns
            slot += 1
        following = (rank + 1) % ranks
        wait = blocked_until[rank] - now
        if wait > 1e-9:
            if ranks > 1 and here < window and blocked_until[following] <= now:
                extra = max(0.0, min(window - here - ahead, wait * rate, left - here))
                ahead, left = ahead + extra, left - extra
            now = blocked_until[rank]
            continue
        moved = min(left, here, max(0.0, (slot * slot_ns - now) * rate))
        now, left, here = now + moved / rate, left - moved, here - moved
        if here <= 1e-6:
            rank, here, ahead = following, memory.sweep_bytes - ahead, 0.0
        elif left > 1e-6:
            now = slot * slot_ns
    return now


def stream_share(memory: DramMemory, size_bytes: int) -> float:
    """Share of the peak that one stream gets, phase and all."""
    return size_bytes / stream_ns(memory, size_bytes) / memory.peak_gbs


def random_interval_ns(memory: DramMemory, size_bytes: int, ranks: int | None = None) -> float:
    """Time from one random read of ``size_bytes`` to the next, many outstanding, no refresh.

    The slowest of: the bus (bursts; a change of rank in (R - 1) / R of the cases; a wait of tCCD_L in the one case of
    groups x R in which the next read falls into the same group), activations (tRRD, and four in tFAW, for each rank),
    and the banks (tRC each).
    """
    timing, ranks = memory.timing, memory.ranks if ranks is None else ranks
    bursts = -(-size_bytes // memory.burst_bytes)
    bus = bursts * memory.burst_ns + timing.rank_switch_ns * (ranks - 1) / ranks
    if memory.bank_groups > 1:
        bus += max(0.0, timing.ccd_long_ns - memory.burst_ns) / (memory.bank_groups * ranks)
    rows = -(-size_bytes // memory.row_bytes)
    activation = rows * max(timing.rrd_ns, timing.faw_ns / 4) / ranks
    return max(bus, activation, rows * timing.rc_ns / (memory.banks * ranks))


def random_share(memory: DramMemory, size_bytes: int) -> float:
    """Share of the peak of random reads. While one of R ranks refreshes, the others go on, each at its own limits."""
    ranks, timing = memory.ranks, memory.timing
    whole = -(-size_bytes // memory.burst_bytes) * memory.burst_bytes / memory.peak_gbs
    full = whole / random_interval_ns(memory, size_bytes)
    refreshing = min(1.0, ranks * timing.refresh_stall_ns / timing.refi_ns)
    reduced = 0.0 if ranks == 1 else whole / random_interval_ns(memory, size_bytes, ranks - 1)
    return full * (1.0 - refreshing) + min(full, reduced) * refreshing


def unloaded_latency_ns(memory: DramMemory, period_ns: float | None = None) -> float:
    """Mean latency of single-burst random reads, one every ``period_ns`` (default: rare, so that banks are closed).

    = controller + tRCD + read latency + burst + P(row conflict) tRP + P(in refresh) x half of it.
    A refresh closes all banks of its rank, so of the n reads that the rank gets in tREFI the first in each of its B
    banks finds it closed: B (1 - (1 - 1/B)^n) of n; the others find another row open.
    """
    timing, banks = memory.timing, memory.banks
    fixed = memory.controller_clocks * timing.clock_ns + timing.rcd_ns + timing.read_latency_ns + memory.burst_ns
    blocked = timing.rp_ns + timing.rfc_ns
    refresh = min(1.0, blocked / timing.refi_ns) * blocked / 2
    if period_ns is None:
        return fixed + refresh
    reads = timing.refi_ns / period_ns / memory.ranks
    untouched = float((1.0 - 1.0 / banks) ** reads)
    closed = min(1.0, banks * (1.0 - untouched) / reads)
    return fixed + (1.0 - closed) * timing.rp_ns + refresh
