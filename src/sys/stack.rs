//! The stack of a thread that is going to wait: what it used before and does not use now is memory
//! that nobody needs.

use std::hint::black_box;

/// Gives back the pages of this thread's stack that lie below the caller's frame, all but a margin
/// for the call itself. They read as zero when the stack grows into them again.
///
/// Not for the main thread, whose stack the kernel sizes by itself.
#[inline(never)]
pub fn trim() {
    let Some((low, size)) = bounds() else { return };
    let local = 0u8;
    let here = std::ptr::from_ref(black_box(&local)).addr();
    let inside = here.wrapping_sub(low) < size;
    // The margin covers the frame of madvise and the red zone below it (System V ABI, 3.2.2).
    let end = here.saturating_sub(1024) & !(PAGE - 1);
    if inside && end > low {
        // SAFETY: the range lies within this thread's own stack and below every frame that is in
        // use: this function's lies above `here - 1024`, and so do those of its callers. No signal
        // handler of ours runs on this stack. What is discarded is never read again before it is
        // written.
        unsafe { libc::madvise(low as *mut libc::c_void, end - low, libc::MADV_DONTNEED) };
    }
}

/// Page sizes are powers of two and at least this; a larger one only makes madvise refuse.
const PAGE: usize = 4096;

/// The lowest address and the size of this thread's stack.
fn bounds() -> Option<(usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: pthread_getattr_np initialises the attributes of the calling thread or fails; they are
    // read and destroyed only after it succeeded. The out pointers are valid for the calls.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let read = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (read == 0).then_some((low.addr(), size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses a good part of the stack, and leaves what it found there.
    #[inline(never)]
    fn dig(pattern: u8) -> u64 {
        let mut deep = [pattern; 64 * 1024];
        black_box(&mut deep);
        deep.iter().map(|&b| u64::from(b)).sum()
    }

    #[test]
    fn a_trimmed_stack_works_on() {
        let thread = std::thread::Builder::new().stack_size(256 * 1024);
        let thread = thread.spawn(|| {
            let kept = black_box([7u8; 512]);
            for round in 1..=50u8 {
                assert_eq!(dig(round), 64 * 1024 * u64::from(round));
                trim();
            }
            kept.iter().map(|&b| u64::from(b)).sum::<u64>()
        });
        assert_eq!(thread.unwrap().join().unwrap(), 7 * 512);
    }

    #[test]
    fn the_bounds_hold_a_local_variable() {
        let thread = std::thread::spawn(|| {
            let (low, size) = bounds().unwrap();
            let local = 0u8;
            let here = std::ptr::from_ref(black_box(&local)).addr();
            assert!(here > low && here < low + size);
        });
        thread.join().unwrap();
    }
}
