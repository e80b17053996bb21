import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { Context } from 'hono'
import * as v from 'valibot'
import { mayAccess } from '../../auth/access.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { type Digest, parseDigest } from '../../oci/digest.ts'
import type { RepositoryName } from '../../oci/name.ts'
import { checkDocument, inWords, type Violation } from '../../packs/document.ts'
import { type PackDocument, repositoryOf } from '../../packs/pack.ts'
import { tagOf } from '../../packs/version.ts'
import { type BundlePublish, checkBundle, publishBundle } from '../../registry/bundles.ts'
import { checkPublish, type Publish, type Published, publishPack } from '../../registry/publish.ts'
import { principalOf, requireAccess, requireLogin } from '../access.ts'
import type { Env, Routes } from '../routes.ts'
import { readForm } from './form.ts'
import { jsonBody, parseJson, switchQuery } from './request.ts'

/** Content of up to 8 MiB may come as base64 in JSON, which makes a third more of it. */
const maxJsonBytes = 12 * 1024 * 1024

export const publishBody = v.strictObject({
  manifest: v.record(v.string(), v.unknown()),
  content: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]*={0,2}$/, 'must be base64'))),
  contentType: v.optional(v.string()),
  filename: v.optional(v.string()),
})

/** A publish as it came, by either form. */
type Submission = {
  manifest: unknown
  content: Publish['content'] | undefined
  complete: Promise<unknown>
  drop(): void
}

export function addPackPublish(routes: Routes, deps: Deps): void {
  routes.post('/packs', async (c) => {
    // Before the body is read; whose pack it is stands in that.
    requireLogin(c)
    const allowMissing = switchQuery(c, 'allowMissing')
    const dryRun = switchQuery(c, 'dryRun')
    const submission = await submissionOf(c)
    try {
      const { document, created, declared, violations } = checkManifest(submission.manifest)
      if (document) requireAccess(c, repositoryOf(document.packId), 'push')
      const mayPull = (repository: RepositoryName) => mayAccess(principalOf(c), repository, 'pull')
      const { content, complete } = submission
      if (dryRun) {
        if (!content && document?.type === 'bundle')
          return await tryOutBundle(deps, { document, created, declared, mayPull }, violations, complete)
        return await tryOut(deps, submission, document, violations, allowMissing)
      }
      if (!document || violations.length > 0)
        throw new Failure('PACK_INVALID', { detail: `the manifest: ${inWords(violations)}`, about: { violations } })
      if (content)
        return published(await publishPack(deps, { document, content, created, declared, allowMissing, complete }))
      if (document.type !== 'bundle')
        throw new Failure('REQUEST_INVALID', {
          detail: `the part "content" is missing; only a bundle can do without, and this is a pack of type ${document.type}`,
        })
      await complete
      return published(await publishBundle(deps, { document, created, declared, mayPull }))
    } finally {
      submission.drop()
    }
  })
}

function published({ isNew, ...answer }: Published): Response {
  const location = `/packs/${answer.packId}/${encodeURIComponent(answer.version)}`
  return Response.json(answer, { status: isNew ? 201 : 200, headers: { location } })
}

async function submissionOf(c: Context<Env>): Promise<Submission> {
  const type = c.req.header('content-type')?.split(';')[0]?.trim().toLowerCase()
  if (type === 'multipart/form-data') {
    const form = readForm(c.env.incoming)
    const manifest = parseJson(await form.manifest, 'the part "manifest"')
    return { manifest, content: await form.content, complete: form.ended, drop: form.drop }
  }
  if (type !== 'application/json')
    throw new Failure('REQUEST_INVALID', { detail: 'Content-Type must be multipart/form-data or application/json' })
  const { manifest, content, contentType, filename } = await jsonBody(c, publishBody, maxJsonBytes)
  const part =
    content === undefined
      ? undefined
      : { stream: Readable.from([Buffer.from(content, 'base64')]), mediaType: contentType, title: filename }
  return { manifest, content: part, complete: Promise.resolve(), drop: () => undefined }
}

type Checked = {
  document: PackDocument | undefined
  created: string | undefined
  declared: Publish['declared']
  violations: Violation[]
}

/** The manifest part: the document, and beside it what the client says of the content and the time. */
function checkManifest(manifest: unknown): Checked {
  const { digest, size, created, ...written } = Object(manifest) as Record<string, unknown>
  const violations: Violation[] = []
  const declaredDigest = typeof digest === 'string' ? parseDigest(digest) : undefined
  if (digest !== undefined && !declaredDigest?.startsWith('sha256:'))
    violations.push({ path: 'digest', message: 'must be sha256: and 64 hex digits' })
  const declaredSize = Number.isSafeInteger(size) && Number(size) >= 0 ? Number(size) : undefined
  if (size !== undefined && declaredSize === undefined)
    violations.push({ path: 'size', message: 'must be a whole number of bytes' })
  const time =
    typeof created === 'string' &&
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/.test(created) &&
    !Number.isNaN(Date.parse(created))
      ? created
      : undefined
  if (created !== undefined && time === undefined)
    violations.push({ path: 'created', message: 'must be a time such as 2026-01-31T12:00:00Z' })
  const checked = checkDocument(
    typeof manifest === 'object' && manifest !== null && !Array.isArray(manifest) ? written : manifest,
  )
  const document = 'document' in checked ? checked.document : undefined
  if ('violations' in checked) violations.unshift(...checked.violations)
  return { document, created: time, declared: { digest: declaredDigest, size: declaredSize }, violations }
}

/** What would become of it. The content is hashed, where there is any, and stored nowhere. */
async function tryOut(
  deps: Deps,
  { content, complete }: Submission,
  document: PackDocument | undefined,
  found: Violation[],
  allowMissing: boolean,
): Promise<Response> {
  const violations = [...found, ...(document ? await checkPublish(deps, document, { allowMissing }) : [])]
  const about = document ? { packId: document.packId, version: document.version, tag: tagOf(document.version) } : {}
  const digest = content && (await hashOf(content.stream))
  await complete
  return Response.json({ valid: violations.length === 0, violations, ...about, ...(digest ? { digest } : {}) })
}

/** What would become of a bundle without content: its members, or what keeps it from being resolved. */
async function tryOutBundle(
  deps: Deps,
  bundle: BundlePublish,
  found: Violation[],
  complete: Promise<unknown>,
): Promise<Response> {
  await complete
  const { packId, version } = bundle.document
  const checked = await checkBundle(deps, bundle)
  const violations = [...found, ...checked.violations]
  const members = checked.members.map((member) => ({ packId: member.packId, version: member.version }))
  return Response.json({ valid: violations.length === 0, violations, packId, version, tag: tagOf(version), members })
}

async function hashOf(stream: Readable): Promise<Digest> {
  const hash = createHash('sha256')
  for await (const piece of stream) hash.update(piece as Buffer)
  return `sha256:${hash.digest('hex')}` as Digest
}
