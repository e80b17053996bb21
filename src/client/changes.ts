import { askFor } from './answers.ts'
import { type Connection, jsonBody, queryOf } from './connection.ts'
import { PacksError } from './failure.ts'
import { type Pack, type PackState, packPath } from './pack.ts'
import { type DryRun, type Published, publish, type Submission, type UploadProgress } from './publish.ts'

type Cancellable = { signal?: AbortSignal | undefined }
type UploadOptions = Cancellable & { onProgress?: ((progress: UploadProgress) => void) | undefined }

/** A channel, where it points now. `manifestDigest` may be given to the next call as `ifMatch`. */
export type Channel = { packId: string; channel: string; version: string; manifestDigest: string }

/** What is done to packs. */
export type Changes = {
  /** Publishes a version. Throws PACK_INVALID, VERSION_EXISTS, VERSION_SPENT, DEPENDENCY_INVALID, CONTENT_CHANGED. */
  publish(submission: Submission & { dryRun: true }, options?: UploadOptions): Promise<DryRun>
  publish(submission: Submission & { dryRun?: false }, options?: UploadOptions): Promise<Published>
  publish(submission: Submission, options?: UploadOptions): Promise<Published | DryRun>
  /** Says of a version that it is active, deprecated or yanked. `replacedBy`: the id of a pack, or `id@version`. */
  setState(
    packId: string,
    version: string,
    change: { state: PackState; message?: string | undefined; replacedBy?: string | undefined },
    options?: Cancellable,
  ): Promise<Pack>
  /**
   * Points a channel at a published version. `ifMatch`: the digest of the manifest that it must point at now.
   * Throws PRECONDITION_FAILED where it points elsewhere by now, CHANNEL_BACKWARDS where it names a newer version, unless
   * `allowOlder` says why that is meant.
   */
  setChannel(
    packId: string,
    channel: string,
    version: string,
    options?: Cancellable & { ifMatch?: string | undefined; allowOlder?: { reason: string } | undefined },
  ): Promise<Channel>
  /**
   * Deletes a version; its number is never used again. False where there was none (also where the answer of an earlier
   * try was lost). Throws DEPENDENTS_EXIST unless `force`.
   */
  remove(packId: string, version: string, options?: Cancellable & { force?: boolean | undefined }): Promise<boolean>
}

export function changesOf(connection: Connection): Changes {
  return {
    // Which of the two it answers depends on `dryRun`, as the overloads say.
    publish: ((submission, options = {}) => publish(connection, submission, options)) as Changes['publish'],
    async setState(packId, version, change, { signal } = {}) {
      const call = { method: 'PATCH' as const, path: packPath(packId, version), body: jsonBody(change), signal }
      return (await askFor<{ pack: Pack }>(connection, 'pack', call)).pack
    },
    setChannel: (packId, channel, version, options = {}) =>
      setChannel(connection, { packId, channel, version }, options),
    async remove(packId, version, { force, signal } = {}) {
      const path = packPath(packId, version) + queryOf({ force: force ? 'true' : undefined })
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', { method: 'DELETE', path, signal })).deleted
    },
  }
}

async function setChannel(
  connection: Connection,
  { packId, channel, version }: { packId: string; channel: string; version: string },
  { ifMatch, allowOlder, signal }: NonNullable<Parameters<Changes['setChannel']>[3]>,
): Promise<Channel> {
  const headers = ifMatch === undefined ? {} : { 'if-match': `"${ifMatch}"` }
  const query = queryOf(allowOlder ? { allowOlder: 'true', reason: allowOlder.reason } : {})
  const call = { method: 'PUT' as const, path: packPath(packId, 'channels', channel) + query, headers, signal }
  try {
    return await askFor<Channel>(connection, 'manifestDigest', { ...call, body: jsonBody({ version }) })
  } catch (error) {
    if (!(error instanceof PacksError) || error.code !== 'PRECONDITION_FAILED') throw error
    // The answer to an earlier try may have been lost: what points there already needs no change. RFC 9110, 13.1.1.
    const found = { path: packPath(packId, channel, 'manifest'), signal }
    const { pack } = await askFor<{ pack: Pack }>(connection, 'pack', found)
    if (pack.version !== version) throw error
    return { packId, channel, version, manifestDigest: pack.manifestDigest }
  }
}
