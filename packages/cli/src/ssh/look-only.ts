/** Set by `postern doctor`: `ssh -G` runs what stands after `Match exec`, and `ssh-keysign` then signs nothing. */
export const LOOK_ONLY = 'POSTERN_SSH_LOOK_ONLY'
