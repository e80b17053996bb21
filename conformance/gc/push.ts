import assert from 'node:assert/strict'
import { sha256, withQuery } from '../registry-client.ts'
import type { Balanced } from './balancer.ts'
import type { Client } from './load.ts'

const octets = { 'content-type': 'application/octet-stream' }
const forms = ['post', 'put', 'patch', 'chunks', 'mount', 'mount from anywhere'] as const
/** A push that is cut off begins anew; this often, with replicas killed all the time, is beyond chance. */
const mostBeginnings = 30

/** Has a repository hold content, in one of the ways there are. `mayAsk`: whether a HEAD is taken for an answer. */
export async function pushBlob(
  client: Client,
  repository: string,
  bytes: Buffer,
  { mayAsk }: { mayAsk: boolean },
): Promise<void> {
  const { chance, balancer, load, name } = client
  const digest = sha256(bytes)
  if (mayAsk && chance.below(2) === 0) {
    const { status, from } = await balancer.ask('HEAD', `/v2/${repository}/blobs/${digest}`)
    load.ledger.note(name, `head: ${status} from ${from} in ${repository}`, digest)
    if (status === 200) return
  }
  for (let beginnings = 1; beginnings <= mostBeginnings; beginnings++) {
    const form = chance.pick(forms)
    const push = openPush(client, repository, bytes)
    const done = await push.send(form)
    load.ledger.note(name, `blob: ${done ? 'stored' : 'cut off'} by ${form} in ${repository}`, digest)
    if (push.interrupted()) load.ledger.interrupted.add(digest)
    if (done) return
  }
  assert.fail(`${digest} was cut off ${mostBeginnings} times`)
}

/** One attempt. `send` answers false where it has to begin anew, because some request of it was not answered. */
function openPush({ balancer, chance, load }: Client, repository: string, bytes: Buffer) {
  const digest = sha256(bytes)
  const uploads = `/v2/${repository}/blobs/uploads/`
  let interrupted = false

  async function ask(
    method: string,
    path: string,
    body?: Buffer,
    range: Record<string, string> = {},
  ): Promise<Balanced> {
    const sent = body === undefined ? {} : { headers: { ...octets, ...range }, body }
    const answer = await balancer.ask(method, path, sent)
    interrupted ||= answer.interrupted
    return answer
  }
  /** Where the upload goes on; undefined where it does not. */
  function next(answer: Balanced, status: number): string | undefined {
    if (answer.status === status) return answer.headers.location ?? ''
    assert.ok(
      interrupted,
      `${repository} ${digest}: ${answer.status} from ${answer.from}: ${answer.body.subarray(0, 300)}`,
    )
    return undefined
  }
  const query = (location: string, more: Record<string, string>) => {
    const url = new URL(withQuery(new URL(location, 'http://registry').href, more))
    return url.pathname + url.search
  }
  const finish = async (location: string | undefined, body: Buffer) =>
    location !== undefined && next(await ask('PUT', query(location, { digest }), body), 201) !== undefined

  async function inPieces(step: number, withRange: boolean): Promise<boolean> {
    let location = next(await ask('POST', uploads), 202)
    for (let at = 0; location !== undefined && at < bytes.length; at += step) {
      const piece = bytes.subarray(at, at + step)
      const range = withRange ? { 'content-range': `${at}-${at + piece.length - 1}` } : {}
      location = next(await ask('PATCH', query(location, {}), piece, range), 202)
    }
    return finish(location, Buffer.alloc(0))
  }
  async function mount(from: Record<string, string>): Promise<boolean> {
    const answer = await ask('POST', query(uploads, { mount: digest, ...from }))
    return answer.status === 201 || finish(next(answer, 202), bytes)
  }

  const ways: Record<(typeof forms)[number], () => Promise<boolean>> = {
    post: async () => next(await ask('POST', query(uploads, { digest }), bytes), 201) !== undefined,
    put: async () => finish(next(await ask('POST', uploads), 202), bytes),
    patch: () => inPieces(bytes.length, false),
    chunks: () => inPieces(Math.ceil(bytes.length / 3), true),
    mount: () => mount({ from: chance.pick(load.repositories) }),
    'mount from anywhere': () => mount({}),
  }
  return { send: (form: (typeof forms)[number]) => ways[form](), interrupted: () => interrupted }
}
