/**
 * How far a pull is: of one pack, and of all of the lock. `cached`: its bytes were at hand and are not asked for.
 * `receivedBytes` begins above 0 where an interrupted download goes on, and may fall back where it has to begin again.
 */
export type PullProgress = {
  packId: string
  version: string
  /** Where it will be, whole and verified, when `receivedBytes` is `totalBytes` and the pull of it has ended. */
  file: string
  receivedBytes: number
  totalBytes: number
  cached: boolean
  overall: { receivedBytes: number; totalBytes: number }
}

/** A pack that is on the disk, verified. */
export type PulledPack = {
  packId: string
  version: string
  /** The path: `<into>/<packId>/<file name>`. A bundle without content of its own: its index, `index.json`. */
  file: string
  digest: string
  size: number
  mediaType: string
  /** It came from the cache, or was there already: the registry was not asked. */
  cached: boolean
}

/** `into`: the folder; it is made where it is missing. */
export type PullOptions = {
  into: string
  onProgress?: ((progress: PullProgress) => void) | undefined
  signal?: AbortSignal | undefined
}
