import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { imageManifest, manifestOf, sha256 } from '../registry-client.ts'
import { type Balanced, type Balancer, openBalancer } from './balancer.ts'
import type { Chance } from './chance.ts'
import type { Entry, Ledger } from './ledger.ts'
import { pushBlob } from './push.ts'

// What clients do to a registry, by chance. Content is drawn from a small store that all share, so pushes, mounts and
// deletions of the same bytes meet all the time. A manifest, a tag and a version of a pack belong to the client that made
// it, so each client knows how those have to be. Clients keep to the protocol: content that no manifest needs may be
// gone after the grace, and who is told so pushes it again.

export type Load = {
  readonly ledger: Ledger
  readonly urls: readonly string[]
  readonly contents: readonly Buffer[]
  readonly repositories: readonly string[]
  readonly chance: Chance
  readonly graceMs: number
  isOver(): boolean
}

/** One client at work. */
export type Client = {
  readonly name: string
  readonly load: Load
  readonly chance: Chance
  readonly balancer: Balancer
  /** Its own manifests and tags (`repository:tag`). */
  readonly own: Entry[]
  readonly tags: Set<string>
  readonly versions: string[]
}

/** How long a client pushes again what it is told is missing, before that counts as never getting through. */
const patienceMs = 180_000

export function openClient(load: Load, number: number): Client {
  const name = `client ${number}`
  const onRetry = (said: string) => {
    load.ledger.note(name, `retry: ${said}`)
    if (said.includes('POST /packs') && !said.startsWith('ECONNREFUSED')) load.ledger.cutOffPublishing++
  }
  const balancer = openBalancer(load.urls, { first: number, onRetry })
  return { name, load, balancer, chance: load.chance.branch(name), own: [], tags: new Set(), versions: [] }
}

/** Goes on until the load is over. */
export async function work(client: Client): Promise<void> {
  const acts = [
    ...Array<typeof push>(6).fill(push),
    ...[deleteManifest, deleteManifest, pushAgain, moveTag, deleteBlob, read, read, publish, unpublish],
  ]
  while (!client.load.isOver()) await client.chance.pick(acts)(client)
}

/** Pushes a new manifest over shared contents. */
async function push(client: Client): Promise<void> {
  const { chance, load } = client
  const repository = chance.pick(load.repositories)
  const layers = Array.from({ length: 1 + chance.below(3) }, () => chance.pick(load.contents))
  const config = Buffer.from(JSON.stringify({ by: client.name, salt: chance.below(2 ** 32) }))
  const bytes = manifestOf(config, layers)
  const contents = [config, ...layers]
  const blobs = [...new Set(contents.map(sha256))]
  const entry: Entry = { repository, digest: sha256(bytes), bytes, contents, blobs, state: 'unsure' }
  client.own.push(entry)
  load.ledger.manifests.push(entry)
  await store(
    client,
    entry,
    chance.below(3) === 0 ? undefined : `${client.name.replace(' ', '-')}-${client.own.length}`,
  )
}

/** Pushes a manifest that was deleted once more, under no tag. */
async function pushAgain(client: Client): Promise<void> {
  const gone = client.own.filter(({ state }) => state === 'deleted')
  if (gone.length > 0) await store(client, client.chance.pick(gone))
}

/** Stores blobs, then the manifest; as often as it takes, within bounds. */
export async function store(client: Client, entry: Entry, tag?: string): Promise<void> {
  const { chance, load, name } = client
  const { repository, digest, bytes, contents } = entry
  const place = tag && `${repository}:${tag}`
  entry.state = 'unsure'
  if (place) load.ledger.tags.set(place, undefined)
  const began = Date.now()
  for (let tries = 1; ; tries++) {
    const since = Date.now()
    if (tries === 1) for (const content of contents) await pushBlob(client, repository, content, { mayAsk: true })
    // Side by side, so that it is done within the grace on a slow machine, too.
    else await Promise.all(contents.map((content) => pushBlob(client, repository, content, { mayAsk: false })))
    // Now and then for longer than the grace.
    if (tries === 1 && chance.below(6) === 0) await sleep(chance.below(load.graceMs * 2))
    const answer = await client.balancer.ask('PUT', `/v2/${repository}/manifests/${tag ?? digest}`, {
      headers: { 'content-type': imageManifest },
      body: bytes,
    })
    load.ledger.note(name, `put: ${answer.status} try ${tries} from ${answer.from}`, digest, ...entry.blobs)
    if (answer.status === 201) break
    const unknown = unknownBlobs(answer)
    const isPromised = Date.now() - since < load.graceMs * promisedShare
    const broken = unknown.filter((blob) => isPromised && load.ledger.unlinkedAt(repository, blob) < since)
    assert.deepEqual(broken, [], `${repository}@${digest}: what was acknowledged within the grace is gone`)
    assert.ok(Date.now() - began < patienceMs, `${repository}@${digest} does not get through: ${answer.body}`)
  }
  entry.state = 'there'
  if (!place) return
  load.ledger.tags.set(place, digest)
  client.tags.add(place)
}

/** The share of the grace that is promised: a HEAD within the rest puts nothing off. See confirmBlob. */
const promisedShare = 0.95

/** The blobs that an answer says are missing. Fails where it says something else. */
function unknownBlobs(answer: Balanced): string[] {
  const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string; detail: { digests: string[] } }[] }
  const [error] = errors
  assert.equal(error?.code, 'MANIFEST_BLOB_UNKNOWN', `PUT manifest: ${answer.status} ${answer.body}`)
  return error.detail.digests
}

/** Deletes a manifest by its digest; its tags go with it. */
async function deleteManifest(client: Client): Promise<void> {
  const entry = pickThere(client)
  if (!entry) return
  const { repository, digest } = entry
  const { ledger } = client.load
  entry.state = 'unsure'
  const answer = await client.balancer.ask('DELETE', `/v2/${repository}/manifests/${digest}`)
  ledger.note(client.name, `delete: ${answer.status} from ${answer.from}`, digest, ...entry.blobs)
  expectStatus(answer, answer.interrupted ? [202, 404] : [202], `DELETE ${repository}@${digest}`)
  entry.state = 'deleted'
  for (const place of client.tags)
    if (place.startsWith(`${repository}:`) && ledger.tags.get(place) === digest) {
      ledger.tags.set(place, 'gone')
      client.tags.delete(place)
    }
}

/** Has a tag name another manifest of the client's. */
async function moveTag(client: Client): Promise<void> {
  const entry = pickThere(client)
  const places = [...client.tags].filter((place) => place.startsWith(`${entry?.repository}:`))
  if (!entry || places.length === 0) return
  const place = client.chance.pick(places)
  const { repository, digest, bytes } = entry
  client.load.ledger.tags.set(place, undefined)
  const answer = await client.balancer.ask('PUT', `/v2/${repository}/manifests/${place.split(':')[1]}`, {
    headers: { 'content-type': imageManifest },
    body: bytes,
  })
  client.load.ledger.note(client.name, `move: ${answer.status} ${place}`, digest, place)
  // The manifest is there, so what it needs is there too.
  expectStatus(answer, [201], `PUT ${place} of ${digest}`)
  client.load.ledger.tags.set(place, digest)
}

/** Takes shared content out of a repository, unless a manifest needs it there. */
async function deleteBlob(client: Client): Promise<void> {
  const { chance, load } = client
  const [repository, digest] = [chance.pick(load.repositories), sha256(chance.pick(load.contents))]
  const ended = load.ledger.unlinking(repository, digest)
  const answer = await client.balancer.ask('DELETE', `/v2/${repository}/blobs/${digest}`)
  ended()
  load.ledger.note(client.name, `unlink: ${answer.status} in ${repository}`, digest)
  if (answer.status === 202 || answer.status === 404) return
  assert.match(
    answer.body.toString(),
    /in use|IN_USE|part of a manifest/i,
    `DELETE blob: ${answer.status} ${answer.body}`,
  )
}

/** Reads a manifest and all it needs back, from any replica. */
async function read(client: Client): Promise<void> {
  const entry = pickThere(client)
  if (entry) await verify(client.balancer, entry)
}

function pickThere({ own, chance }: Client): Entry | undefined {
  const there = own.filter(({ state }) => state === 'there')
  return there.length > 0 ? chance.pick(there) : undefined
}

/** Publishes a version of the client's pack, by the facade. */
async function publish(client: Client): Promise<void> {
  const { load, chance } = client
  const packId = client.name.replace(' ', '-')
  const version = `1.0.${client.versions.length}`
  const content = chance.pick(load.contents)
  client.versions.push(version)
  const key = `${packId}/${version}`
  load.ledger.versions.set(key, { content: sha256(content), state: 'unsure' })
  const began = Date.now()
  for (;;) {
    const answer = await client.balancer.ask('POST', '/packs', {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ manifest: { packId, version, type: 'policy' }, content: content.toString('base64') }),
    })
    load.ledger.note(client.name, `publish: ${answer.status} ${key}`, sha256(content), key)
    if (answer.status === 201 || answer.status === 200 || (answer.status === 409 && answer.interrupted)) break
    assert.match(answer.body.toString(), /MANIFEST_BLOB_UNKNOWN/i, `POST /packs: ${answer.status} ${answer.body}`)
    assert.ok(Date.now() - began < patienceMs, `${key} does not get through: ${answer.body}`)
  }
  load.ledger.versions.set(key, { content: sha256(content), state: 'there' })
}

async function unpublish(client: Client): Promise<void> {
  const { ledger } = client.load
  const packId = client.name.replace(' ', '-')
  const there = client.versions.filter((version) => ledger.versions.get(`${packId}/${version}`)?.state === 'there')
  if (there.length === 0) return
  const key = `${packId}/${client.chance.pick(there)}`
  const content = ledger.versions.get(key)?.content ?? ''
  ledger.versions.set(key, { content, state: 'unsure' })
  const answer = await client.balancer.ask('DELETE', `/packs/${key}`)
  ledger.note(client.name, `unpublish: ${answer.status} ${key}`, content, key)
  expectStatus(answer, answer.interrupted ? [200, 204, 404, 410] : [200, 204], `DELETE /packs/${key}`)
  ledger.versions.set(key, { content, state: 'deleted' })
}

export function expectStatus(answer: Balanced, statuses: readonly number[], what: string): void {
  assert.ok(
    statuses.includes(answer.status),
    `${what}: ${answer.status} from ${answer.from}: ${answer.body.subarray(0, 500)}`,
  )
}

/** Reads a manifest and its blobs, and compares every byte. `of`: the replicas to ask. */
export async function verify(balancer: Balancer, entry: Entry, of?: readonly string[]): Promise<void> {
  const { repository, digest, bytes, blobs } = entry
  const get = (path: string) => balancer.ask('GET', `/v2/${repository}/${path}`, of ? { of } : {})
  const answer = await get(`manifests/${digest}`)
  expectStatus(answer, [200], `GET ${repository}@${digest}, which was acknowledged`)
  assert.ok(answer.body.equals(bytes), `${repository}@${digest} is not what was pushed`)
  for (const blob of blobs) {
    const content = await get(`blobs/${blob}`)
    expectStatus(content, [200], `GET ${blob}, which ${repository}@${digest} needs`)
    assert.equal(sha256(content.body), blob, `blob of ${repository}@${digest}`)
  }
}
