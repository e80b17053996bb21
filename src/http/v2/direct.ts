import type { IncomingMessage, ServerResponse } from 'node:http'
import { mayAccess, type Principal } from '../../auth/access.ts'
import type { Deps } from '../../deps.ts'
import type { Digest } from '../../oci/digest.ts'
import { parseName, type RepositoryName } from '../../oci/name.ts'
import { parseReference, type Reference } from '../../oci/reference.ts'
import { smallBytes } from '../../registry/blobs.ts'
import { countRequest } from '../observe.ts'
import { plainAsker, whileLive } from '../plain.ts'
import { blobHead } from './blobs.ts'
import { askManifest, manifestHead } from './manifests.ts'
import { always, type Head } from './reply.ts'

// The two reads that are nearly all of a registry's traffic, manifests and small blobs that are in memory, answered
// without the router, a Request, a Response or a promise: measured at about twice the rate. It takes only the plainest
// form of the question and only the answer 200; everything else (conditions, ranges, encoded paths, credentials that are
// not known yet, what is not there, may not be read, or fails) is left to the routes, which ask again and have the last
// word.

const manifestRoute = '/v2/:name{.+}/manifests/:reference'
const blobRoute = '/v2/:name{.+}/blobs/:digest'

/** Takes the request if it is one of those; else `otherwise` is called, now or later, and nothing was answered. */
export function answerDirectly(
  deps: Deps,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  otherwise: () => void,
): void {
  const question = parse(deps, incoming)
  if (!question || !mayAccess(question.principal, question.name, 'pull')) otherwise()
  else reply(deps, question, incoming, outgoing, otherwise)
}

function reply(
  deps: Deps,
  question: Question,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  otherwise: () => void,
): void {
  const started = performance.now()
  const ifLive = whileLive(deps, question.principal, outgoing, otherwise)
  const answer = (route: string, head: Head, body: Buffer | undefined, size: number) =>
    ifLive(() => {
      head.push(...always, 'content-length', size)
      outgoing.writeHead(200, head as string[])
      outgoing.end(body)
      countRequest(deps, route, incoming.method ?? '', 200, started)
    })
  const { name, reference } = question
  if (question.kind === 'manifests') {
    const isHead = incoming.method === 'HEAD'
    askManifest(deps, name, reference, isHead, (found) => {
      if (!found || outgoing.destroyed) otherwise()
      else answer(manifestRoute, manifestHead(found), isHead ? undefined : found.payload, found.size)
    })
  } else if (reference.digest !== undefined && incoming.method === 'GET') {
    askSmallBlob(deps, name, reference.digest, (body) => {
      if (!body || outgoing.destroyed) otherwise()
      else answer(blobRoute, blobHead(reference.digest), body, body.length)
    })
  } else otherwise()
}

type Question = { kind: 'manifests' | 'blobs'; name: RepositoryName; reference: Reference; principal: Principal }

/** The parts of `/v2/<name>/<kind>/<reference>`, read from the right, for a name may contain any of the words. */
function parse(deps: Deps, incoming: IncomingMessage): Question | undefined {
  const { method, url } = incoming
  if ((method !== 'GET' && method !== 'HEAD') || !url?.startsWith('/v2/')) return undefined
  const last = url.lastIndexOf('/')
  const before = url.lastIndexOf('/', last - 1)
  const kind = url.slice(before + 1, last)
  if (kind !== 'manifests' && kind !== 'blobs') return undefined
  const principal = plainAsker(deps, incoming)
  if (!principal) return undefined
  const name = parseName(url.slice('/v2/'.length, before))
  const reference = parseReference(url.slice(last + 1))
  return name && reference && { kind, name, reference, principal }
}

/** The bytes of a blob that is in memory and, says the database now, in the repository. */
function askSmallBlob(deps: Deps, repository: RepositoryName, digest: Digest, done: (bytes?: Buffer) => void): void {
  const bytes = deps.bytes.get(digest)
  if (!bytes || bytes.length > smallBytes) done()
  else deps.together.linkedBlob.ask({ repository, digest }, (_error, found) => done(found && bytes))
}
