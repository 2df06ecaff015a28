-- wrk's requests, read from a file that requests.py wrote: wrk ... URL -- FILE RUN PAUSE
-- They are sent in their order, again and again. RUN, unless it is empty, makes every request a URL
-- that nobody has asked for before. PAUSE: milliseconds before each request.

local before, after, run, count, number
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  run, number, count = args[2], 0, 0
  before, after = {}, {}
  local file = assert(io.open(args[1], "rb"))
  for size in file:lines() do
    local request = file:read(tonumber(size))
    count = count + 1
    if run == "" then
      before[count] = request
    else
      -- The query goes between these two.
      local at = request:find(" HTTP/1.1", 1, true)
      before[count], after[count] = request:sub(1, at - 1), request:sub(at)
    end
  end
  file:close()
  local pause = tonumber(args[3])
  if pause > 0 then
    -- wrk looks whether there is such a function after this one.
    function delay()
      return pause
    end
  end
  prepared_after = os.clock()
end

function request()
  number = number + 1
  local at = number % count + 1
  if run == "" then
    return before[at]
  end
  return before[at] .. "?" .. run .. "-" .. number .. after[at]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"bytes":%.0f,"failed":%d,"p50_us":%d,"p99_us":%d,"cpu":%.3f}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99),
    os.clock() - threads[1]:get("prepared_after")
  ))
end
