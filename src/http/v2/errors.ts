import { type Failure, failures } from '../../errors.ts'
import { reply } from './reply.ts'

/** The specification's error document. Source: distribution-spec, "Error Codes". */
export function ociError(failure: Failure): Response {
  const { status, title, ...own } = failures[failure.key]
  const code = 'code' in own ? own.code : failure.key
  // Of an error, docker and podman show the message alone. Where the code is a common one, what is meant is in our words.
  const message = 'code' in own && typeof failure.detail === 'string' ? `${title}: ${failure.detail}` : title
  const body = JSON.stringify({ errors: [{ code, message, detail: failure.detail ?? {} }] })
  return reply(status, { 'content-type': 'application/json', ...failure.headers }, body)
}

/** The answer to what no rule foresaw: it says nothing about the inside. */
export function ociInternalError(id: string): Response {
  const detail = { requestId: id }
  const body = JSON.stringify({ errors: [{ code: 'UNKNOWN', message: 'internal error; see the log', detail }] })
  return reply(500, { 'content-type': 'application/json' }, body)
}
