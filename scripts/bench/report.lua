-- wrk's figures, exact and in one line. Only `done` is defined: the hot path of wrk stays the built-in one.
done = function(summary)
  local e = summary.errors
  io.write(string.format('REPORT {"requests":%d,"bytes":%d,"microseconds":%d,"notOk":%d,"socketErrors":%d}\n',
    summary.requests, summary.bytes, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
