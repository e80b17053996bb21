import * as v from 'valibot'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { packIdSchema, packStateSchema, versionSchema } from '../../packs/document.ts'
import { idGrammar, parsePackId, repositoryOf } from '../../packs/pack.ts'
import { grammar, parseVersion } from '../../packs/version.ts'
import { setChannel } from '../../registry/channels.ts'
import { changeState } from '../../registry/pack-changes.ts'
import { deleteVersion } from '../../registry/pack-removal.ts'
import { mayPullFor, requireAccess } from '../access.ts'
import type { Routes } from '../routes.ts'
import { digestOfEtag } from '../v2/manifests.ts'
import type { Answer, channelAnswer, deletedAnswer } from './answers.ts'
import {
  jsonBody,
  jsonText,
  noQuery,
  packIdParam,
  query,
  queryOf,
  reasonSchema,
  switchSchema,
  versionParam,
} from './request.ts'

const replacement = 'must be the id of a pack, or id@version'

export const stateBody = v.strictObject({
  state: packStateSchema,
  message: v.optional(
    v.pipe(
      v.string(),
      v.maxLength(1000),
      v.check((text) => !/\0|\p{Surrogate}/u.test(text), 'must be text'),
      v.description('Why, for those who use it.'),
    ),
  ),
  replacedBy: v.optional(
    v.union(
      [
        packIdSchema,
        v.pipe(
          v.string(),
          v.check(isPackAtVersion, replacement),
          v.metadata({
            pattern: `${idGrammar.source.slice(0, -1)}@${grammar.source.slice(1)}`,
            maxLength: 257,
            examples: ['net-policy@2.0.0'],
          }),
        ),
      ],
      replacement,
    ),
  ),
})
function isPackAtVersion(text: string): boolean {
  const at = text.indexOf('@')
  return parsePackId(text.slice(0, Math.max(at, 0))) !== undefined && parseVersion(text.slice(at + 1)) !== undefined
}

export const deleteQuery = query({ force: switchSchema })
/** The query of PUT /packs/{id}/channels/{channel}. */
export const channelQuery = query({ allowOlder: switchSchema, reason: v.optional(reasonSchema) })
export const channelBody = v.strictObject({ version: versionSchema })

export function addPackChanges(routes: Routes, deps: Deps): void {
  routes.delete('/packs/:id/:version', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'delete')
    const options = { ...queryOf(c, deleteQuery), mayPull: mayPullFor(c) }
    const deleted = await deleteVersion(deps, packId, versionParam(c), options)
    return Response.json({ deleted } satisfies Answer<typeof deletedAnswer>)
  })

  routes.patch('/packs/:id/:version', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'delete')
    queryOf(c, noQuery)
    const version = versionParam(c)
    await changeState(deps, packId, version, await jsonBody(c, stateBody))
    const row = await deps.together.packVersion.load({ packId, version })
    if (!row) throw new Failure('VERSION_UNKNOWN', { detail: `${packId} has no version ${version}` })
    return jsonText(`{"pack":${row.text}}`)
  })

  routes.put('/packs/:id/channels/:channel', async (c) => {
    const packId = packIdParam(c)
    // To set a channel is to approve a version, also where the channel is new.
    requireAccess(c, repositoryOf(packId), 'overwrite')
    const { allowOlder, reason } = queryOf(c, channelQuery)
    if (allowOlder && reason === undefined)
      throw new Failure('QUERY_INVALID', { detail: 'allowOlder=true needs a reason; the audit keeps it: &reason=…' })
    c.env.reason = reason
    const { version } = await jsonBody(c, channelBody)
    const channel = c.req.param('channel') ?? ''
    const ifMatch = digestOfEtag(c.req.header('if-match'))
    const manifestDigest = await setChannel(deps, packId, channel, version, { ifMatch, allowOlder })
    const answer: Answer<typeof channelAnswer> = { packId, channel, version, manifestDigest }
    c.env.digest = manifestDigest
    return Response.json(answer, { headers: { etag: `"${manifestDigest}"` } })
  })
}
