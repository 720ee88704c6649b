/** Replaced by build.ts with the version in package.json. Absent when the sources run unbuilt. */
declare const POSTERN_VERSION: string | undefined

/** The version of this build, for people and for the `software` of an attach message: `0.1.0`. */
export const VERSION: string = typeof POSTERN_VERSION === 'string' ? POSTERN_VERSION : '0.0.0-source'
