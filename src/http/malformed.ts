import type { IncomingMessage, ServerResponse } from 'node:http'
import { RequestError } from '@hono/node-server'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { randomHex } from '../random.ts'
import { problem, problemInternalError } from './problem.ts'
import { safe } from './safety.ts'

/** The answer to a request of which no URL can be made, so that it never comes to the app. */
export function answerMalformed({ log }: Deps, error: unknown): Response {
  if (error instanceof RequestError) {
    log.debug({ reason: error.message }, 'a request could not be understood')
    const detail = 'the target of a request is a path, and its one Host field is the host, or host:port, that is asked'
    return safely(problem(new Failure('REQUEST_INVALID', { detail })))
  }
  const id = randomHex(8)
  log.error({ id, error }, 'a request failed before its answer was made')
  return safely(problemInternalError(id))
}

/** Whether a request names its host more than once: two readers of it may each take another. RFC 9112, section 3.2. */
export function hasTwoHosts({ rawHeaders }: IncomingMessage): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2)
    if (rawHeaders[i]?.length === 4 && rawHeaders[i]?.toLowerCase() === 'host') hosts++
  return hosts > 1
}

/** Refuses a request that names two hosts, and ends its connection. */
export function refuseTwoHosts(deps: Deps, outgoing: ServerResponse): void {
  const answer = answerMalformed(deps, new RequestError('it has two Host fields'))
  outgoing.writeHead(answer.status, { ...Object.fromEntries(answer.headers), connection: 'close' })
  void answer.text().then((text) => outgoing.end(text))
}

function safely(answer: Response): Response {
  for (let i = 0; i < safe.length; i += 2) answer.headers.set(safe[i] as string, safe[i + 1] as string)
  return answer
}
