-- wrk's requests, as a browser makes them: wrk ... URL -- PATH PAGES STEP RUN PAUSE
-- PATH is where the pages are, PAGES how many there are. They are visited by steps of STEP, which
-- shares no factor with PAGES: all of them, out of order. RUN, unless it is empty, makes every
-- request a URL that nobody has asked for before. PAUSE: milliseconds before each request.

local fields = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  ["Accept-Language"] = "en-US,en;q=0.5",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate",
  ["Sec-Fetch-Site"] = "same-origin",
  ["Referer"] = "http://shop.example/",
  ["Upgrade-Insecure-Requests"] = "1",
}

local pages, step, run, ready, number
local before, after

function init(args)
  pages, step, run = tonumber(args[2]), tonumber(args[3]), args[4]
  number = 0
  ready = {}
  for page = 0, pages - 1 do
    ready[page] = wrk.format("GET", args[1] .. page, fields)
  end
  local pause = tonumber(args[5])
  if pause > 0 then
    -- wrk looks whether there is such a function after this one.
    function delay()
      return pause
    end
  end
  if run ~= "" then
    -- The page's number and the query go between these two.
    local whole = wrk.format("GET", args[1] .. "PAGE", fields)
    local first, last = whole:find("PAGE", 1, true)
    before, after = whole:sub(1, first - 1), whole:sub(last + 1)
  end
end

function request()
  number = number + 1
  local page = (number * step) % pages
  if run == "" then
    return ready[page]
  end
  return before .. page .. "?" .. run .. "-" .. number .. after
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"bytes":%d,"failed":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
