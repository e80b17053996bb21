/** Header fields by name. */
export type Fields = Record<string, string | number>

/** Header fields as one flat list, name and value in turn: what Node writes fastest. */
export type Head = (string | number)[]

/** On every answer of /v2: old clients look for it before they believe that this is a registry. */
export const always = ['docker-distribution-api-version', 'registry/2.0']

/** Served content is never to be run in this origin, whatever type its publisher gave it. */
export const inert = ['x-content-type-options', 'nosniff', 'content-security-policy', "default-src 'none'; sandbox"]

export function fieldsOf(head: Head): Fields {
  const fields: Fields = {}
  for (let i = 0; i < head.length; i += 2) fields[String(head[i])] = head[i + 1] ?? ''
  return fields
}

const alwaysFields = fieldsOf(always)

/**
 * An answer of /v2. The fields stay a plain record all the way to the socket: building a `Headers` of them would cost
 * more than the rest of a small answer.
 */
export function reply(status: number, fields: Fields, body: Uint8Array | string | null = null): Response {
  const headers: Fields = { ...alwaysFields, ...fields }
  if (body === null && headers['content-length'] === undefined && status !== 204 && status !== 304)
    headers['content-length'] = 0
  return new Response(body, { status, headers: headers as Record<string, string> })
}

/** A JSON document under its own media type. */
export function replyJson(document: unknown, fields: Fields = {}): Response {
  return reply(200, { 'content-type': 'application/json', ...fields }, JSON.stringify(document))
}

/** `Link` to the next page, relative, as RFC 5988 writes it. */
export function nextPage(path: string, query: Record<string, string | number | undefined>): Fields {
  const parts = Object.entries(query).filter(([, value]) => value !== undefined)
  const text = parts.map(([key, value]) => `${key}=${encodeURIComponent(value as string | number)}`).join('&')
  return { link: `<${path}?${text}>; rel="next"` }
}

/** Whether an If-None-Match header names this digest. Source: RFC 9110, section 13.1.2. */
export function unchanged(header: string | undefined, digest: string): boolean {
  if (header === undefined) return false
  return header.split(',').some((part) => {
    const tag = part.trim().replace(/^W\//, '')
    return tag === '*' || tag === `"${digest}"`
  })
}
