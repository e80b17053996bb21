import { type Failure, failures } from '../errors.ts'

const headers = { 'content-type': 'application/problem+json' }

/** A problem document. Source: RFC 9457. */
export function problem(failure: Failure): Response {
  const { status, title } = failures[failure.key]
  const { detail, about } = failure
  const told =
    typeof detail === 'string'
      ? { detail, ...(about ? { about } : {}) }
      : detail === undefined
        ? {}
        : { detail: title, about: detail }
  const body = JSON.stringify({ type: `urn:packs-registry:${failure.key}`, title, status, ...told })
  return new Response(body, { status, headers: { ...headers, ...failure.headers } })
}

export const internalErrorTitle = 'internal error; see the log'

/** The answer to what no rule foresaw: it says nothing about the inside. */
export function problemInternalError(id: string): Response {
  const body = JSON.stringify({
    type: 'urn:packs-registry:UNKNOWN',
    title: internalErrorTitle,
    status: 500,
    requestId: id,
  })
  return new Response(body, { status: 500, headers })
}
