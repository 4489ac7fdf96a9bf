"""How runs wait in Redis for one of several runners: the keys and the scripts, for servers and runners alike.

A run waits as a member of one sorted set. Its score is its priority, then its round, then the order of arrival: each
person has one run in a round, so whoever has queued twenty stands behind everybody else's first. A new run's round is
the one that is being served, or the one after its person's last, whichever is later. A rank in the set is a position, its
size decides about refusal, and taking a run out is one command; none of that can be had from a stream, which is in
order of arrival alone. Streams do what they are good at: `NEWS` wakes the runners, and each server has one, `offers`,
on which a runner says which run it has claimed. Both are read from a position, so nothing is missed while a line is down.

A claim takes the run out of the set and puts the offer on its server's stream in one step: it is made before anything
has begun, by one runner alone, and is never lost between the two. What follows is between that server and that runner.
"""

from __future__ import annotations

LINE = "atelier:line"
"""Sorted set of run ids."""
WAITING = "atelier:line:waiting"
"""Hash: run id to JSON {server, language}."""
ROUNDS = "atelier:line:rounds"
"""Hash: person to the round of their last run; forgotten when nobody waits."""
SERVED = "atelier:line:served"
"""Hash: priority to the round of the run that was claimed last."""
NEWS = "atelier:line:news"
"""Stream: something waits."""
RUNNERS = "atelier:runners"
"""Set of the names of runners that registered; each has a key that expires."""
RUNNER_SECONDS = 10
SERVER_SECONDS = 20
OFFER_SECONDS = 3600
PRIORITIES = 4
LOOKED_AT = 1000
"""Runs that a claim looks at, for one in a language of the runner's."""


def runner_key(name: str) -> str:
    """Name the key that says that a runner is there: JSON {address, instance, capabilities, runs}."""
    return f"atelier:runner:{name}"


def server_key(name: str) -> str:
    """Name the key that says that a server is there, and still wants what it has put in the line."""
    return f"atelier:server:{name}"


def offers(server: str) -> str:
    """Name the stream of a server's claimed runs: {run, address, instance}."""
    return f"atelier:offers:{server}"


# KEYS: LINE WAITING ROUNDS SERVED NEWS. ARGV: run, person, priority, most, JSON of `waiting`, 1 to stand in front.
# Returns how many wait, or -1 when that is as many as may.
PUT = """
local priority = tonumber(ARGV[3])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return redis.call('ZCARD', KEYS[1]) end
if ARGV[6] ~= '1' and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return -1 end
local served = tonumber(redis.call('HGET', KEYS[4], ARGV[3]) or 0)
local field = ARGV[3] .. ':' .. ARGV[2]
local round = math.max(served, tonumber(redis.call('HGET', KEYS[3], field) or 0) + 1)
if ARGV[6] == '1' then round = 0 else redis.call('HSET', KEYS[3], field, round) end
local order = redis.call('HINCRBY', KEYS[4], 'order', 1) % 1000000
redis.call('ZADD', KEYS[1], priority * 1e14 + round * 1e6 + order, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[5])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', 16, '*', 'run', ARGV[1])
return redis.call('ZCARD', KEYS[1])
"""

# KEYS: LINE WAITING ROUNDS SERVED. ARGV: run. Returns 1 when it waited.
DROP = """
redis.call('HDEL', KEYS[2], ARGV[1])
local was = redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('ZCARD', KEYS[1]) == 0 then redis.call('DEL', KEYS[3], KEYS[4]) end
return was
"""

# KEYS: LINE WAITING ROUNDS SERVED. ARGV: address, instance, how many to look at, seconds an offer is kept, languages.
# Returns the run that now is this runner's, or nothing. What a server put there that is gone itself is left out.
CLAIM = """
local known = {}
for n = 5, #ARGV do known[ARGV[n]] = true end
local claimed = false
for _, run in ipairs(redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)) do
  local about = cjson.decode(redis.call('HGET', KEYS[2], run) or '{}')
  local server = about.server or ''
  if redis.call('EXISTS', 'atelier:server:' .. server) == 0 then
    redis.call('ZREM', KEYS[1], run)
    redis.call('HDEL', KEYS[2], run)
  elseif known[about.language] then
    local score = tonumber(redis.call('ZSCORE', KEYS[1], run))
    local priority = math.floor(score / 1e14)
    local round = math.floor((score - priority * 1e14) / 1e6)
    local before = tonumber(redis.call('HGET', KEYS[4], tostring(priority)) or 0)
    redis.call('HSET', KEYS[4], tostring(priority), math.max(before, round))
    redis.call('ZREM', KEYS[1], run)
    redis.call('HDEL', KEYS[2], run)
    local stream = 'atelier:offers:' .. server
    redis.call('XADD', stream, 'MAXLEN', '~', 4096, '*', 'run', run, 'address', ARGV[1], 'instance', ARGV[2])
    redis.call('EXPIRE', stream, tonumber(ARGV[4]))
    claimed = run
    break
  end
end
if redis.call('ZCARD', KEYS[1]) == 0 then redis.call('DEL', KEYS[3], KEYS[4]) end
return claimed
"""
