#!lua name=rushes
-- The queue's one library: each function is one atomic action of the transition table in server/queue/types.py.
--
-- Every call has the pool's prefix, {q:<pool>}, as its one key and a JSON object as its one argument. The braces keep
-- all keys of a pool in one cluster slot. Keys under the prefix:
--   job:<id>        hash    the job; `attempt` is the fencing token, `failures` counts the attempts that cost something
--   ready:<tenant>  zset    queued jobs of a tenant by arrival, put off by what their priority costs them
--   shape:<key>     zset    queued jobs that may join a batch of that shape, in the same order
--   tenants         zset    tenants with queued jobs by virtual time; `idle` holds those without that are still ahead
--   leases          zset    running jobs by deadline
--   costs           hash    predicted milliseconds of each queued job
--   load_jobs, load_ms  hash    jobs of a tenant that wait or run, and their predicted milliseconds
--   counters        hash    depth, cost_ms (both of queued jobs), arrival (of the last job, in microseconds by Redis's
--                           clock, but always later than the one before), clock (virtual time of the last lease)
--   events:<id>     stream  what happened to a job
--   arrivals, cancels       short streams that wake workers: the idle ones, and those at work
--   idem:<tenant>:<hash>    the job and body hash behind an idempotency key
--   dead            zset    jobs that used up their attempts, by time, for the operator
--   outbox          stream  ends of jobs that somebody wants to be told of, until they have been told
-- Time is Redis's own and in milliseconds. Virtual time is in predicted milliseconds of work per share of a tenant.

local TERMINAL = {succeeded = true, failed = true, cancelled = true}

local function call(...)
  return redis.call(...) -- does not exist yet while the library is loaded
end

local function open(keys, args)
  local q = cjson.decode(args[1])
  local time = call('TIME')
  q.prefix = keys[1]
  q.now = time[1] * 1000 + math.floor(time[2] / 1000)
  return q
end

local function key(q, name, id) return q.prefix .. ':' .. name .. (id and (':' .. id) or '') end

local function exact(number) return string.format('%.17g', number) end

local function job_fields(q, id, ...)
  return call('HMGET', key(q, 'job', id), ...)
end

local function counter(q, name)
  return tonumber(call('HGET', key(q, 'counters'), name) or '0')
end

local function emit(q, id, kind, data)
  local body = next(data) and cjson.encode(data) or '{}'
  call('XADD', key(q, 'events', id), 'MAXLEN', '=', q.max_events, '*', 'type', kind, 'data', body)
end

-- Fairness between tenants: start-time fair queueing. ---------------------------------------------------------------

local function weight_of(q, tenant)
  return tonumber(call('HGET', key(q, 'weights'), tenant) or '1')
end

-- A tenant's virtual time; one without queued jobs that fell behind the clock comes back at the clock.
local function virtual_time(q, tenant)
  local tag = call('ZSCORE', key(q, 'tenants'), tenant)
  if tag then return tonumber(tag) end
  return math.max(counter(q, 'clock'), tonumber(call('ZSCORE', key(q, 'idle'), tenant) or '0'))
end

local function charge(q, tenant, cost_ms)
  local waiting = call('ZSCORE', key(q, 'tenants'), tenant)
  local tag = virtual_time(q, tenant) + cost_ms / weight_of(q, tenant)
  call('ZADD', key(q, waiting and 'tenants' or 'idle'), exact(tag), tenant)
end

-- What a tenant has in the queue and on the engines together. ------------------------------------------------------

local function load_of(q, tenant)
  return tonumber(call('HGET', key(q, 'load_jobs'), tenant) or '0'),
    tonumber(call('HGET', key(q, 'load_ms'), tenant) or '0')
end

local function burden(q, tenant, jobs, cost_ms)
  local left = call('HINCRBY', key(q, 'load_jobs'), tenant, jobs)
  call('HINCRBY', key(q, 'load_ms'), tenant, cost_ms)
  if left <= 0 then -- an absent field is a zero, and tenants come and go
    call('HDEL', key(q, 'load_jobs'), tenant)
    call('HDEL', key(q, 'load_ms'), tenant)
  end
end

-- Putting a job among the queued, and taking it out: the only two places that touch the ready sets. ------------------

local function push(q, id)
  local job = job_fields(q, id, 'tenant', 'score', 'shape', 'cost_ms', 'failures')
  local tenant, score, cost_ms = job[1], job[2], job[4]
  call('ZADD', key(q, 'tenants'), 'NX', exact(virtual_time(q, tenant)), tenant)
  call('ZREM', key(q, 'idle'), tenant)
  call('ZADD', key(q, 'ready', tenant), score, id)
  -- A job that already failed once runs alone, so that a poisonous one cannot use up its mates' attempts.
  if job[5] == '0' then call('ZADD', key(q, 'shape', job[3]), score, id) end
  call('HSET', key(q, 'costs'), id, cost_ms)
  call('HINCRBY', key(q, 'counters'), 'depth', 1)
  call('HINCRBY', key(q, 'counters'), 'cost_ms', cost_ms)
  call('HSET', key(q, 'job', id), 'state', 'queued')
  call('XADD', key(q, 'arrivals'), 'MAXLEN', '=', 16, '*', 'job', id)
end

local function pull(q, id)
  local job = job_fields(q, id, 'tenant', 'shape', 'cost_ms')
  local tenant = job[1]
  call('ZREM', key(q, 'ready', tenant), id)
  call('ZREM', key(q, 'shape', job[2]), id)
  call('HDEL', key(q, 'costs'), id)
  call('HINCRBY', key(q, 'counters'), 'depth', -1)
  call('HINCRBY', key(q, 'counters'), 'cost_ms', -job[3])
  if call('EXISTS', key(q, 'ready', tenant)) == 0 then
    call('ZADD', key(q, 'idle'), exact(virtual_time(q, tenant)), tenant)
    call('ZREM', key(q, 'tenants'), tenant)
  end
end

-- Ends of an attempt. ------------------------------------------------------------------------------------------------

local function settle(q, id, state, fields)
  local job = key(q, 'job', id)
  local told = call('HMGET', job, 'tenant', 'cost_ms', 'webhook')
  burden(q, told[1], -1, -told[2])
  call('ZREM', key(q, 'leases'), id)
  call('HSET', job, 'state', state, 'finished_ms', q.now)
  if told[3] then call('XADD', key(q, 'outbox'), '*', 'job', id, 'tenant', told[1], 'state', state) end
  for name, value in pairs(fields) do call('HSET', job, name, value) end
  local attempt = tonumber(call('HGET', job, 'attempt'))
  emit(q, id, state, {attempt = attempt, error_code = fields.error_code, error_message = fields.error_message})
  for _, kept in ipairs({job, key(q, 'events', id)}) do call('PEXPIRE', kept, q.retention_ms) end
end

local function bury(q, id, code, message)
  settle(q, id, 'failed', {error_code = code, error_message = message})
  call('ZADD', key(q, 'dead'), q.now, id)
  call('ZREMRANGEBYSCORE', key(q, 'dead'), '-inf', q.now - q.retention_ms)
end

-- Back to its old place, its tenant refunded: the work was not delivered.
local function requeue(q, id, reason)
  local job = job_fields(q, id, 'tenant', 'cost_ms', 'attempt')
  call('ZREM', key(q, 'leases'), id)
  call('HDEL', key(q, 'job', id), 'stage', 'step', 'num_steps')
  charge(q, job[1], -job[2])
  push(q, id)
  emit(q, id, 'retrying', {reason = reason, attempt = tonumber(job[3])})
end

-- What becomes of a running job whose attempt ended without an outcome. A drain costs nothing.
local function give_back(q, id, reason, worker)
  local job = key(q, 'job', id)
  if call('HEXISTS', job, 'cancel') == 1 then return settle(q, id, 'cancelled', {}) end
  if reason == 'drain' then return requeue(q, id, reason) end
  local failures = call('HINCRBY', job, 'failures', 1)
  if reason == 'crash' then
    local first = call('HGET', job, 'crashed_on')
    if first and first ~= worker then
      return bury(q, id, 'worker_crashed_twice', 'the job crashed two different workers')
    end
    call('HSET', job, 'crashed_on', worker)
  end
  if failures >= q.max_attempts then
    local code = reason == 'storage' and 'storage_error' or 'attempts_exhausted'
    return bury(q, id, code, 'the job failed ' .. failures .. ' times and was given up')
  end
  requeue(q, id, reason)
end

-- A lease never ends later than a lease's length from now, but when the clock was set back; it is shortened then.
local function shorten_leases(q)
  local latest = q.now + q.lease_ms
  for _, id in ipairs(call('ZRANGEBYSCORE', key(q, 'leases'), '(' .. latest, '+inf')) do
    call('ZADD', key(q, 'leases'), latest, id)
  end
end

local function reap_expired(q)
  shorten_leases(q)
  local expired = call('ZRANGEBYSCORE', key(q, 'leases'), '-inf', q.now, 'LIMIT', 0, 64)
  for _, id in ipairs(expired) do give_back(q, id, 'lease_expired', '') end
  return expired
end

-- Whether (job, attempt) still holds its lease: the fence.
local function holds(q)
  local job = job_fields(q, q.job_id, 'state', 'attempt')
  return job[1] == 'running' and tonumber(job[2]) == q.attempt
end

-- Leasing. -----------------------------------------------------------------------------------------------------------

local function start(q, id)
  local job = key(q, 'job', id)
  local fields = job_fields(q, id, 'tenant', 'request', 'cost_ms')
  charge(q, fields[1], fields[3])
  pull(q, id)
  local attempt = call('HINCRBY', job, 'attempt', 1)
  call('HSET', job, 'state', 'running', 'worker', q.worker_id)
  call('HSETNX', job, 'started_ms', q.now)
  call('ZADD', key(q, 'leases'), q.now + q.lease_ms, id)
  emit(q, id, 'running', {attempt = attempt})
  return {id, attempt, fields[1], fields[2]}
end

-- A mate jumps its tenant's turn; that is fair while its tenant is not too far ahead, or is alone.
local function may_join(q, tenant, clock)
  if call('ZCARD', key(q, 'tenants')) <= 1 then return true end
  return virtual_time(q, tenant) <= clock + q.batch_budget_ms
end

local function lease(keys, args)
  local q = open(keys, args)
  reap_expired(q)
  local next_tenant = call('ZRANGE', key(q, 'tenants'), 0, 0, 'WITHSCORES')
  local tenant, clock = next_tenant[1], tonumber(next_tenant[2])
  if not tenant then return {} end
  call('HSET', key(q, 'counters'), 'clock', exact(clock))
  call('ZREMRANGEBYSCORE', key(q, 'idle'), '-inf', exact(clock))
  local head = call('ZRANGE', key(q, 'ready', tenant), 0, 0)[1]
  local job = job_fields(q, head, 'shape', 'failures')
  local batch = {start(q, head)}
  if job[2] ~= '0' or q.max_batch < 2 then return batch end
  for _, id in ipairs(call('ZRANGE', key(q, 'shape', job[1]), 0, 4 * q.max_batch)) do
    if #batch == q.max_batch then break end
    if may_join(q, job_fields(q, id, 'tenant')[1], clock) then batch[#batch + 1] = start(q, id) end
  end
  return batch
end

-- The other actions. -------------------------------------------------------------------------------------------------

-- What is left of the running jobs, by their progress.
local function running_ms(q)
  local left = 0
  for _, id in ipairs(call('ZRANGE', key(q, 'leases'), 0, -1)) do
    local job = job_fields(q, id, 'cost_ms', 'step', 'num_steps')
    local done = tonumber(job[3] or '0') > 0 and job[2] / job[3] or 0
    left = left + job[1] * (1 - done)
  end
  return left
end

-- Milliseconds of work over a bound if the new job joins `jobs` others of `cost_ms`; nil when it fits, as it does alone.
local function excess_ms(q, jobs, cost_ms, max_jobs, max_cost_ms)
  if jobs == 0 then return nil end
  local over_cost = cost_ms + q.cost_ms - max_cost_ms
  local over_count = (jobs + 1 - max_jobs) * cost_ms / jobs
  if over_cost <= 0 and jobs < max_jobs then return nil end
  return math.max(over_cost, over_count)
end

-- Why a job does not fit, and in how many milliseconds it will. A tenant's excess is worked off at the tenant's share;
-- the queue's is gone when the last job that must leave it is begun, the first being begun after what runs now.
local function refusal(q)
  local workers = math.max(1, call('SCARD', key(q, 'workers')))
  local jobs, cost_ms = load_of(q, q.tenant)
  local over = excess_ms(q, jobs, cost_ms, q.tenant_max_jobs or math.huge, q.tenant_max_ms or math.huge)
  if over then return 'tenant_full', over * math.max(1, call('ZCARD', key(q, 'tenants'))) / workers end
  local depth, waiting_ms = counter(q, 'depth'), counter(q, 'cost_ms')
  over = excess_ms(q, depth, waiting_ms, q.max_jobs, q.max_cost_ms)
  if over then return 'full', (running_ms(q) + math.max(0, over - waiting_ms / depth)) / workers end
end

-- When the job came: later than any before it, even after the clock was set back, and exact in a double.
local function arrival(q)
  local at = math.max(counter(q, 'arrival') + 1, q.now * 1000)
  call('HSET', key(q, 'counters'), 'arrival', exact(at))
  return at
end

local function enqueue(keys, args)
  local q = open(keys, args)
  local job = key(q, 'job', q.job_id)
  local memory = q.idempotency and key(q, 'idem', q.tenant .. ':' .. q.idempotency)
  local known = memory and call('HMGET', memory, 'job', 'body')
  if known and known[1] then return {known[2] == q.body_hash and 'replayed' or 'conflict', known[1]} end
  if call('EXISTS', job) == 1 then return {'replayed', q.job_id} end
  local bound, wait_ms = refusal(q)
  if bound then return {bound, math.ceil(wait_ms)} end
  if memory then
    call('HSET', memory, 'job', q.job_id, 'body', q.body_hash)
    call('PEXPIRE', memory, q.idempotency_ms)
  end
  -- Ageing without a clockwork: a step of priority is a wait, so whoever has waited longer by it goes first.
  local score = arrival(q) + q.priority * q.ageing_ms * 1000
  if q.webhook then call('HSET', job, 'webhook', q.webhook) end
  burden(q, q.tenant, 1, q.cost_ms)
  call('HSET', job, 'tenant', q.tenant, 'priority', q.priority, 'score', exact(score), 'shape', q.shape_key,
    'cost_ms', q.cost_ms, 'request', q.request, 'created_ms', q.now, 'attempt', 0, 'failures', 0)
  push(q, q.job_id)
  emit(q, q.job_id, 'queued', {})
  return {'accepted', q.job_id}
end

local function renew(keys, args)
  local q = open(keys, args)
  if not holds(q) then return 'lost' end
  local job = key(q, 'job', q.job_id)
  call('ZADD', key(q, 'leases'), q.now + q.lease_ms, q.job_id)
  if q.stage then
    local old = call('HMGET', job, 'stage', 'step')
    if old[1] ~= q.stage or tonumber(old[2]) ~= q.step then
      call('HSET', job, 'stage', q.stage, 'step', q.step, 'num_steps', q.num_steps)
      emit(q, q.job_id, 'progress', {stage = q.stage, step = q.step, num_steps = q.num_steps})
    end
  end
  return call('HEXISTS', job, 'cancel') == 1 and 'cancel' or 'ok'
end

-- A repeated finish of the accepted attempt is told ok again, so that a lost reply does no harm.
local function finish(keys, args)
  local q = open(keys, args)
  if holds(q) then
    q.fields.finished_by = q.attempt
    settle(q, q.job_id, q.state, q.fields)
    return 'ok'
  end
  local job = job_fields(q, q.job_id, 'state', 'finished_by')
  return job[1] == q.state and tonumber(job[2]) == q.attempt and 'ok' or 'stale'
end

local function release(keys, args)
  local q = open(keys, args)
  if not holds(q) then return 'stale' end
  give_back(q, q.job_id, q.reason, q.worker_id)
  return 'ok'
end

local function cancel(keys, args)
  local q = open(keys, args)
  local state = call('HGET', key(q, 'job', q.job_id), 'state')
  if not state then return 'unknown' end
  if TERMINAL[state] then return 'terminal' end
  if state == 'queued' then
    pull(q, q.job_id)
    settle(q, q.job_id, 'cancelled', {})
    return 'cancelled'
  end
  if call('HSETNX', key(q, 'job', q.job_id), 'cancel', 1) == 1 then
    emit(q, q.job_id, 'cancelling', {})
    call('XADD', key(q, 'cancels'), 'MAXLEN', '=', 64, '*', 'job', q.job_id)
  end
  return 'requested'
end

local function reap(keys, args) return reap_expired(open(keys, args)) end

-- Looking ahead: how many jobs, and how much work, come before a queued one if nothing else arrives. -----------------

local READ = 100 -- of a longer line the first are read and the others taken for the like of these

-- The costs of the first of a tenant's `count` jobs, their sum and their mean.
local function line_of(q, tenant, count)
  if count == 0 then return {}, 0, 0 end
  local ids = call('ZRANGE', key(q, 'ready', tenant), 0, math.min(count, READ) - 1)
  local costs, sum = call('HMGET', key(q, 'costs'), unpack(ids)), 0
  for _, cost in ipairs(costs) do sum = sum + cost end
  return costs, sum, sum / #costs
end

local function ahead(keys, args)
  local q = open(keys, args)
  local job = job_fields(q, q.job_id, 'state', 'tenant')
  if job[1] ~= 'queued' then return false end
  local place = call('ZRANK', key(q, 'ready', job[2]), q.job_id)
  local mine, sum, mean = line_of(q, job[2], place)
  sum = sum + (place - #mine) * mean
  local ahead_ms, turn = running_ms(q) + sum, virtual_time(q, job[2]) + sum / weight_of(q, job[2])
  local tenants = call('ZRANGEBYSCORE', key(q, 'tenants'), '-inf', exact(turn), 'WITHSCORES')
  for i = 1, #tenants, 2 do
    local other, tag, weight = tenants[i], tonumber(tenants[i + 1]), weight_of(q, tenants[i])
    local count = other == job[2] and 0 or call('ZCARD', key(q, 'ready', other))
    local costs, _, usual = line_of(q, other, count)
    local function is_before() return tag < turn or (tag == turn and other < job[2]) end
    for _, cost in ipairs(costs) do
      if not is_before() then break end
      place, ahead_ms, tag, count = place + 1, ahead_ms + cost, tag + cost / weight, count - 1
    end
    if count > 0 and is_before() then
      local more = usual > 0 and math.min(count, math.floor((turn - tag) * weight / usual) + 1) or count
      place, ahead_ms = place + more, ahead_ms + more * usual
    end
  end
  return {place, math.ceil(ahead_ms)}
end

-- A full memory must stop new jobs, not the outcomes of those that run.
local function register(name, callback, flag)
  redis.register_function{function_name = 'rushes_' .. name, callback = callback, flags = {flag}}
end

register('enqueue', enqueue)
register('lease', lease)
register('renew', renew, 'allow-oom')
register('finish', finish, 'allow-oom')
register('release', release, 'allow-oom')
register('cancel', cancel, 'allow-oom')
register('reap', reap, 'allow-oom')
register('ahead', ahead, 'no-writes')
