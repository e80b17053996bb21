import type { IncomingMessage, ServerResponse } from 'node:http'
import { mayAccess, type Principal } from '../../auth/access.ts'
import type { Deps } from '../../deps.ts'
import type { Tag } from '../../oci/reference.ts'
import { type PackId, parsePackId, repositoryOf } from '../../packs/pack.ts'
import { parseVersion, type Version } from '../../packs/version.ts'
import { smallBytes } from '../../registry/blobs.ts'
import { countRequest } from '../observe.ts'
import { plainAsker, whileLive } from '../plain.ts'
import { safe } from '../safety.ts'
import { always, type Head } from '../v2/reply.ts'
import { contentHead } from './content.ts'
import { channelOf } from './select.ts'

// What runners ask of packs, a version's content and its description, answered without the router where the question is
// a plain one and the answer 200, as src/http/v2/direct.ts does it and for its reasons. The routes have the last word.

const contentRoute = '/packs/:id/:version'
const manifestRoute = '/packs/:id/:version/manifest'

/** Takes the request if it is one of those; else `otherwise` is called, now or later, and nothing was answered. */
export function answerPackDirectly(
  deps: Deps,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  otherwise: () => void,
): void {
  const question = parse(deps, incoming)
  if (!question || !mayAccess(question.principal, repositoryOf(question.packId), 'pull')) otherwise()
  else reply(deps, question, outgoing, otherwise)
}

function reply(
  deps: Deps,
  { isManifest, principal, ...key }: Question,
  outgoing: ServerResponse,
  otherwise: () => void,
): void {
  const started = performance.now()
  const ifLive = whileLive(deps, principal, outgoing, otherwise)
  const answer = (route: string, head: Head, body: Buffer | string) =>
    ifLive(() => {
      head.push('content-length', Buffer.byteLength(body))
      outgoing.writeHead(200, head as string[])
      // Text leaves together with the head.
      outgoing.end(body)
      countRequest(deps, route, 'GET', 200, started)
    })
  if (isManifest)
    deps.together.packDescription.ask(key, (_error, text) => {
      if (!text || outgoing.destroyed) return otherwise()
      answer(manifestRoute, ['content-type', 'application/json', ...safe], `{"pack":${text}}`)
    })
  else
    deps.together.packContent.ask(key, (_error, row) => {
      const bytes = row && deps.bytes.get(row.digest)
      if (!row || !bytes || bytes.length > smallBytes || outgoing.destroyed) return otherwise()
      answer(contentRoute, [...contentHead(row, key.version !== undefined), ...always], bytes)
    })
}

type Question = {
  isManifest: boolean
  packId: PackId
  version: Version | undefined
  tag: Tag | undefined
  principal: Principal
}

/** `/packs/<id>/<version or channel>`, with or without `/manifest`. */
function parse(deps: Deps, incoming: IncomingMessage): Question | undefined {
  const { method, url } = incoming
  if (method !== 'GET' || !url?.startsWith(folder)) return undefined
  const first = url.indexOf('/', folder.length)
  const second = url.indexOf('/', first + 1)
  const isManifest = second > 0 && url.slice(second) === '/manifest'
  const principal = first < 0 || (second > 0 && !isManifest) ? undefined : plainAsker(deps, incoming)
  if (!principal) return undefined
  const packId = parsePackId(url.slice(folder.length, first))
  const selector = isManifest ? url.slice(first + 1, second) : url.slice(first + 1)
  const version = parseVersion(selector)
  if (!packId || (!isManifest && selector === 'versions')) return undefined
  const tag = version ? undefined : channelOf(selector)
  return version || tag ? { isManifest, packId, version, tag, principal } : undefined
}

const folder = '/packs/'
