import { Readable } from 'node:stream'
import type { Context } from 'hono'
import * as v from 'valibot'
import { mayAccess } from '../../auth/access.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import type { Digest } from '../../oci/digest.ts'
import type { RepositoryName } from '../../oci/name.ts'
import { inWords, type Violation } from '../../packs/document.ts'
import { type PackId, repositoryOf } from '../../packs/pack.ts'
import { tagOf } from '../../packs/version.ts'
import { type BundlePublish, checkBundle, publishBundle } from '../../registry/bundles.ts'
import { checkPublish, hashOf, type Publish, type Published, publishPack } from '../../registry/publish.ts'
import { mayPullFor, principalOf, requireAccess, requireLogin, requireStill } from '../access.ts'
import type { Env, Routes } from '../routes.ts'
import type { Answer, dryRunAnswer, publishedAnswer } from './answers.ts'
import { readForm } from './form.ts'
import { type Checked, checkManifest } from './manifest.ts'
import { jsonBody, parseJson, query, queryOf, switchSchema } from './request.ts'

/** Content of up to 8 MiB may come as base64 in JSON, which makes a third more of it. */
const maxJsonBytes = 12 * 1024 * 1024

export const publishQuery = query({ allowMissing: switchSchema, dryRun: switchSchema })

export const publishBody = v.strictObject({
  manifest: v.record(v.string(), v.unknown()),
  content: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^[A-Za-z0-9+/]*={0,2}$/, 'must be base64'),
      v.check((text) => text.length % 4 === 0, 'must be base64, with its padding'),
      v.metadata({ contentEncoding: 'base64', description: 'The content, at most 8 MiB of it.' }),
    ),
  ),
  contentType: v.optional(v.string()),
  filename: v.optional(v.string()),
})

/** A publish as it came, by either form. */
type Submission = {
  manifest: unknown
  content: Publish['content'] | undefined
  complete: Promise<unknown>
  failure(): Failure | undefined
  drop(): void
}

export function addPackPublish(routes: Routes, deps: Deps): void {
  routes.post('/packs', async (c) => {
    // Before the body is read; whose pack it is stands in that.
    requireLogin(c)
    const { allowMissing, dryRun } = queryOf(c, publishQuery)
    c.env.tries = dryRun
    const submission = await submissionOf(c)
    try {
      const checked = checkManifest(submission.manifest)
      const { document, created, declared, violations } = checked
      if (document) requireAccess(c, repositoryOf(document.packId), 'push')
      const mayPull = (repository: RepositoryName) => mayAccess(principalOf(c), repository, 'pull')
      const { content } = submission
      if (dryRun) {
        if (!content && document?.type === 'bundle')
          return await tryOutBundle(deps, { document, created, declared, mayPull }, violations, submission.complete)
        return await tryOut(deps, submission, checked, { allowMissing, mayPull: mayPullFor(c) })
      }
      if (!document || violations.length > 0)
        throw new Failure('PACK_INVALID', { detail: `the manifest: ${inWords(violations)}`, about: { violations } })
      const complete = submission.complete.then(() => requireStill(c, deps))
      // What fails before it is asked for is told by that.
      complete.catch(() => undefined)
      if (content)
        return published(
          c,
          await publishPack(deps, {
            ...{ document, content, created, declared, allowMissing, complete, atLeast: atLeastOf(c) },
            mayPull: mayPullFor(c),
          }),
        )
      if (document.type !== 'bundle')
        throw new Failure('REQUEST_INVALID', {
          detail: `the part "content" is missing; only a bundle can do without, and this is a pack of type ${document.type}`,
        })
      await complete
      return published(c, await publishBundle(deps, { document, created, declared, mayPull }))
    } catch (error) {
      // A form that breaks off breaks its content off too; only the form knows why.
      throw error instanceof Failure ? error : (submission.failure() ?? error)
    } finally {
      submission.drop()
    }
  })
}

/** What the length of a form tells of its content: the other parts have no more than this together. */
const mostOfOtherParts = 2 * 1024 * 1024

function atLeastOf(c: Context<Env>): number {
  const isForm = c.req.header('content-type')?.toLowerCase().startsWith('multipart/') ?? false
  return isForm ? Math.max(0, Number(c.req.header('content-length') ?? 0) - mostOfOtherParts) : 0
}

function published(c: Context<Env>, { isNew, ...answer }: Published): Response {
  c.env.digest = answer.manifestDigest
  const location = `/packs/${answer.packId}/${encodeURIComponent(answer.version)}`
  return Response.json(answer satisfies Answer<typeof publishedAnswer>, {
    status: isNew ? 201 : 200,
    headers: { location },
  })
}

async function submissionOf(c: Context<Env>): Promise<Submission> {
  const type = c.req.header('content-type')?.split(';')[0]?.trim().toLowerCase()
  if (type === 'multipart/form-data') {
    const form = readForm(c.env.incoming)
    const manifest = parseJson(await form.manifest, 'the part "manifest"')
    return { manifest, content: await form.content, complete: form.ended, failure: form.failure, drop: form.drop }
  }
  if (type !== 'application/json')
    throw new Failure('REQUEST_INVALID', { detail: 'Content-Type must be multipart/form-data or application/json' })
  const { manifest, content, contentType, filename } = await jsonBody(c, publishBody, maxJsonBytes)
  const part =
    content === undefined
      ? undefined
      : { stream: Readable.from([Buffer.from(content, 'base64')]), mediaType: contentType, title: filename }
  return { manifest, content: part, complete: Promise.resolve(), failure: () => undefined, drop: () => undefined }
}

/** What would become of it. The content is hashed, where there is any, and stored nowhere. */
async function tryOut(
  deps: Deps,
  { content, complete }: Submission,
  { document, declared, violations: found }: Checked,
  allowed: { allowMissing: boolean; mayPull: (packId: PackId) => boolean },
): Promise<Response> {
  const violations = [...found, ...(document ? await checkPublish(deps, document, allowed) : [])]
  const about = document ? { packId: document.packId, version: document.version, tag: tagOf(document.version) } : {}
  const actual = content && (await hashOf(content.stream))
  await complete
  if (actual) violations.push(...unlike(declared, actual))
  const answer: Answer<typeof dryRunAnswer> = {
    ...{ valid: violations.length === 0, violations },
    ...about,
    ...(actual ? { digest: actual.digest } : {}),
  }
  return Response.json(answer)
}

/** Where content is not what was declared. */
function unlike(declared: Publish['declared'], actual: { digest: Digest; size: number }): Violation[] {
  const keys = (['digest', 'size'] as const).filter(
    (key) => declared[key] !== undefined && declared[key] !== actual[key],
  )
  return keys.map((key) => ({ path: key, message: `was declared as ${declared[key]}, but is ${actual[key]}` }))
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
  const answer: Answer<typeof dryRunAnswer> = {
    ...{ valid: violations.length === 0, violations },
    ...{ packId, version, tag: tagOf(version), members },
  }
  return Response.json(answer)
}
