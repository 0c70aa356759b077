-- Batches of producers, for send: which one of a producer was stored last, and under what ids.
-- Kept beside the dedup ids of the queue, for twice as long: who repeats a batch within the window
-- may be held up on the way.
-- include: _adding

-- How a producer is kept: dedup ids begin with the kind of their queue, 'q' or 'd'.
local function named(q, producer)
  return 's' .. q.kind .. producer
end

-- The entry id's milliseconds, as text, and its number; nil for other ids.
local function halves(id)
  local ms, number = string.match(id, '^(%d+)%-(%d+)$')
  if ms and #number < 15 then return ms, tonumber(number) end
  return nil
end

-- Find the runs of ids that differ by one: {text of the first, its halves, how many}. Entry ids
-- that were added in a row grow, so the ends of a stretch tell whether there is a gap in it.
local function find_runs(ids, first, last, runs)
  local ms, from = halves(ids[first])
  local same, to = halves(ids[last])
  if first < last and not (ms and ms == same and to - from == last - first) then
    local middle = math.floor((first + last) / 2)
    find_runs(ids, first, middle, runs)
    find_runs(ids, middle + 1, last, runs)
    return
  end
  local before = runs[#runs]
  if before and ms and before.ms == ms and before.from + before.count == from then
    before.count = before.count + last - first + 1
  else
    runs[#runs + 1] = {text = ids[first], ms = ms, from = from, count = last - first + 1}
  end
end

-- Ids in short: a run as 'first*count'.
local function shortened(ids)
  local runs, words = {}, {}
  find_runs(ids, 1, #ids, runs)
  for i, run in ipairs(runs) do
    words[i] = run.count > 1 and run.text .. '*' .. whole(run.count) or run.text
  end
  return words
end

local function lengthened(short)
  local ids = {}
  for word in string.gmatch(short, '%S+') do
    local ms, from, count = string.match(word, '^(%d+)%-(%d+)%*(%d+)$')
    if ms then
      for i = 0, tonumber(count) - 1 do ids[#ids + 1] = ms .. '-' .. whole(tonumber(from) + i) end
    else
      ids[#ids + 1] = word
    end
  end
  return ids
end

-- The ids of this batch if it is the last one that was stored; an error if a later one was.
local function stored_before(q, producer, sequence, now)
  local ends = redis.call('ZSCORE', q.dedup, named(q, producer))
  local last = redis.call('HGET', q.known, named(q, producer))
  if not last or not ends or tonumber(ends) <= now then return nil end
  local number, short = string.match(last, '^(%d+) (.*)$')
  if number == sequence then return lengthened(short) end
  if tonumber(number) < tonumber(sequence) then return nil end
  return redis.error_reply('SEQUENCE batch ' .. sequence .. ' comes after batch ' .. number)
end

-- Remember a batch; one of which nothing was stored may come again.
local function remember(q, producer, sequence, ids, now)
  if #ids == 0 then return end
  local short = q.mixed and ids or shortened(ids)
  forget_old(q, now, 1)
  redis.call('ZADD', q.dedup, whole(now + 2 * q.window), named(q, producer))
  redis.call('HSET', q.known, named(q, producer), sequence .. ' ' .. table.concat(short, ' '))
end
