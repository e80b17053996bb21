-- With paths behind "--": asks for each of them in turn. Without: `request` stays the built-in one, wrk's fastest.
init = function(paths)
  if #paths == 0 then return end
  local requests, at = {}, 0
  for i, path in ipairs(paths) do requests[i] = wrk.format(nil, path) end
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end

-- wrk's figures, exact and in one line.
done = function(summary)
  local e = summary.errors
  io.write(string.format('REPORT {"requests":%d,"bytes":%d,"microseconds":%d,"notOk":%d,"socketErrors":%d}\n',
    summary.requests, summary.bytes, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
