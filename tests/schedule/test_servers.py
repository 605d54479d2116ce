"""Servers grant last within an instant, by (priority, arrival, class, sequence number)."""

from __future__ import annotations

import itertools

import pytest
import simpy

from slicesim.schedule.servers import Lanes, Pipe, then


def serve(order, *, arrivals=None):
    """Ask a pipe for 10 ps each; ``order`` holds (priority, class, sequence) in the order of asking."""
    env = simpy.Environment()
    pipe = Pipe(env)
    done = []

    def client(at, priority, kind, sequence):
        yield env.timeout(at)
        grant = yield pipe.request(10, kind, sequence, priority)
        done.append((sequence, grant, env.now))

    for index, (priority, kind, sequence) in enumerate(order):
        env.process(client(arrivals[index] if arrivals else 0, priority, kind, sequence))
    env.run()
    return done


@pytest.mark.parametrize("order", list(itertools.permutations([(0, 0, 7), (0, 1, 2), (0, 1, 3), (1, 0, 1)])))
def test_the_order_of_asking_within_an_instant_does_not_matter(order):
    """Class 0 first, then class 1 by sequence; lower priority last, whatever its sequence."""
    assert [sequence for sequence, _, _ in serve(order)] == [7, 2, 3, 1]


def test_services_follow_one_another_without_gaps():
    assert serve([(0, 0, 1), (0, 0, 2), (0, 0, 3)]) == [(1, 0, 10), (2, 10, 20), (3, 20, 30)]


def test_a_service_is_not_interrupted_and_arrival_comes_before_class():
    """At 10 the pipe is free: the class-1 request of time 4 waits longest and goes before the class-0 one of time 5."""
    done = serve([(0, 1, 1), (0, 1, 2), (0, 0, 3)], arrivals=[0, 4, 5])
    assert [sequence for sequence, _, _ in done] == [1, 2, 3]


def test_a_request_that_arrives_as_a_service_ends_is_seen_by_that_grant():
    """At 10 the first service ends and a class-0 request arrives; the class-1 one of the same time waits."""
    done = serve([(0, 1, 1), (0, 1, 2), (0, 0, 3)], arrivals=[0, 10, 10])
    assert [sequence for sequence, _, _ in done] == [1, 3, 2]


def test_lanes_hand_out_the_lowest_free_one():
    env = simpy.Environment()
    lanes = Lanes(env, 2)
    seen = []

    def hold(sequence, time):
        def begin(event):
            lane, start = event.value
            seen.append((sequence, lane, start))
            then(env.timeout(time), lambda _: lanes.give_back(lane))

        then(lanes.request(1, 0, sequence), begin)

    for sequence, time in enumerate((5, 3, 4, 1)):
        hold(sequence, time)
    env.run()
    assert seen == [(0, 0, 0), (1, 1, 0), (2, 1, 4), (3, 0, 6)]


def test_a_request_that_is_hurried_keeps_its_arrival_time():
    """The pipe is busy until 10. Low-priority requests 1 and 2 came at 1 and 2, request 3 with high priority at 4.

    At 5 request 2 is hurried: it has the priority of 3 and came before it. So 2 is served at 10, 3 at 20, 1 at 30.
    A second hurry, when 2 is in service, changes nothing.
    """
    env = simpy.Environment()
    pipe = Pipe(env)
    done = []

    def client(at, sequence, priority):
        yield env.timeout(at)
        service = pipe.request(10, 0, sequence, priority)
        services[sequence] = service
        grant = yield service
        done.append((sequence, grant))

    def hurry(at):
        yield env.timeout(at)
        pipe.raise_priority(services[2], 0, 2, 0)

    services = {}
    for at, sequence, priority in ((0, 0, 0), (1, 1, 1), (2, 2, 1), (4, 3, 0)):
        env.process(client(at, sequence, priority))
    env.process(hurry(5))
    env.process(hurry(12))
    env.run()
    assert done == [(0, 0), (2, 10), (3, 20), (1, 30)]
