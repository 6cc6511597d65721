//! A DeepCompression that returns other bytes than it was given, or keeps a way to write them.

use crate::between::Hold;
use crate::lab::{
    Failure, HOSTILE_COMPRESSION, JUDGED_MANAGER, Lab, Outcome, POOL, copy, equal, filled, name, pause,
    refused, until, works,
};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use probe::{Act, HELLO};
use sila_abi::protocol::deep_compression::{COLLECT, SUBMIT, Submit};
use sila_abi::protocol::layout::{OWN_POOL, OWN_PROCESS};
use sila_abi::protocol::module_manager::{Failure as LoadFailure, LOAD, Load, LoadError};
use sila_abi::protocol::wire::OK;
use sila_abi::{Error, Op, Rights, Slot};
use sila_rt::clock::{self, SECOND};
use sila_rt::hostile::invoke;
use sila_rt::ipc::{self, Incoming, Message, Received};
use sila_rt::memory::SharedRegion;
use sila_rt::slots::{Caps, OwnedSlot, make};
use sila_rt::{CallError, op, thread};

/// An address at which nothing is mapped.
const PLACE: u64 = 0x0000_2000_0000_0000;
/// The most bytes of a Region.
const LARGEST: usize = 64 << 20;

/// How the load of the probe through the second ModuleManager goes on, in a thread of its own.
struct Loading {
    answer: Arc<[AtomicU64; 3]>,
    done: OwnedSlot,
    command: OwnedSlot,
}

/// What ModuleManager asked DeepCompression for.
struct Job {
    request: Submit,
    caps: Caps,
}

impl Loading {
    /// Asks for the probe under its other name, with an endpoint for what it says.
    fn begin() -> Result<Self, Failure> {
        let command = works("EndpointCreate", make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst)))?;
        let done = works("NotificationCreate", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?;
        let load = Load { grants: [Some(name("command")?), None, None], ..Load::newest(name(crate::PREY)?) };
        let request = Message::with(LOAD, &load.to_words()).cap(POOL).cap(command.slot());
        let (slot, answer) = (done.slot(), Arc::new([const { AtomicU64::new(0) }; 3]));
        let answered = Arc::clone(&answer);
        let caller = thread::spawn(4, move || {
            let said = ipc::call(JUDGED_MANAGER, &request, 1, clock::after(30 * SECOND));
            let words = said.map_or([u64::MAX; 3], |said| {
                [said.message.label.into(), said.message.word(0), said.message.word(1)]
            });
            answered.iter().zip(words).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
            let _ = op::Signal(slot, 1);
        });
        works("a thread", caller)?;
        Ok(Self { answer, done, command })
    }

    /// What ModuleManager answered at last.
    fn failure(&self) -> Result<LoadFailure, Failure> {
        works("ModuleManager's answer", ipc::wait(self.done.slot(), clock::after(20 * SECOND)))?;
        let [label, words @ ..] = [0, 1, 2].map(|at| self.answer[at].load(Ordering::Relaxed));
        let failure = LoadFailure::from_reply(label as u32, &words);
        failure.ok_or_else(|| Failure::new("ModuleManager's answer", "a refusal", alloc::format!("{label}")))
    }

    /// ModuleManager gave the load up for this reason, and the kernel's.
    fn fails(&self, error: LoadError, kernel: Option<Error>) -> Outcome {
        let failure = self.failure()?;
        equal("why the load failed", (failure.error, failure.kernel_error()), (error, kernel))
    }

    /// The probe runs: it asks what to do, is told to exit, and does.
    fn runs(&self) -> Outcome {
        let hello = works("the probe's call", ipc::recv(self.command.slot(), 0, clock::after(10 * SECOND)))?;
        let Received::Message(hello) = hello else { return Err(Failure::new("a call", "one", "flags")) };
        equal("the probe's call", hello.message.label, HELLO)?;
        works("the order", hello.reply.send(&Message::with(Act::Exit as u32, &[9])))?;
        let failure = self.failure()?;
        let want = (LoadError::InitDied, 1, 9);
        equal("the probe's end", (failure.error, failure.detail, failure.more), want)
    }
}

/// The next call to DeepCompression.
fn call(label: u32, caps: u8) -> Result<Incoming, Failure> {
    match works("a call to DeepCompression", ipc::recv(HOSTILE_COMPRESSION, caps, clock::after(10 * SECOND)))?
    {
        Received::Message(incoming) => {
            equal("what it is called for", incoming.message.label, label)?;
            Ok(incoming)
        }
        Received::Flags(_) => Err(Failure::new("a call to DeepCompression", "one", "flags")),
    }
}

impl Job {
    /// Takes what ModuleManager submits.
    fn take() -> Result<Self, Failure> {
        let Incoming { message, caps, reply, .. } = call(SUBMIT, 3)?;
        let request = Submit::from_words(message.words());
        let request = request.ok_or_else(|| Failure::new("a submission", "six words", "others"))?;
        works("accepting it", reply.send(&Message::with(OK, &[1])))?;
        Ok(Self { request, caps })
    }

    fn cap(&mut self, index: usize) -> Result<OwnedSlot, Failure> {
        self.caps.take(index).ok_or_else(|| Failure::new("a submission", "three capabilities", "fewer"))
    }

    /// The output Region, mapped to be written, and its capability beside that.
    fn output(&mut self) -> Result<(SharedRegion, OwnedSlot), Failure> {
        let output = self.cap(1)?;
        let second =
            works("a second capability", copy(output.slot(), Rights::READ | Rights::WRITE | Rights::COPY))?;
        Ok((works("mapping it", SharedRegion::map(output, true, LARGEST))?, second))
    }

    /// Says that the output is complete, and twice so.
    fn finish(&mut self) -> Outcome {
        let bell = self.cap(2)?;
        works("signalling", op::Signal(bell.slot(), self.request.flags))?;
        works("the verdict", call(COLLECT, 0)?.reply.send(&Message::new(OK)))
    }
}

fn fill(output: &mut SharedRegion, bytes: &[u8]) -> Outcome {
    crate::lab::holds("the bytes fit the output", output.write(0, bytes))
}

/// One load with this content as the output, mapped no more when it is said to be complete.
fn load_of(content: &[u8]) -> Result<Loading, Failure> {
    let loading = Loading::begin()?;
    let mut job = Job::take()?;
    let (mut output, second) = job.output()?;
    fill(&mut output, content)?;
    drop((output, second));
    job.finish()?;
    Ok(loading)
}

/// The stand-in can do its work rightly: so what the other tests see refused is refused for their reasons.
pub fn a_decompressor_that_does_its_work_lets_the_module_run(lab: &Lab) -> Outcome {
    load_of(lab.data(crate::PROBE_IMAGE)?)?.runs()
}

pub fn a_decompressor_that_returns_other_bytes_is_found_out(lab: &Lab) -> Outcome {
    let good = lab.data(crate::PROBE_IMAGE)?;
    let caught = |content: &[u8]| load_of(content)?.fails(LoadError::CreateRefused, Some(Error::ImageDigest));
    for at in [0, 4096, good.len() / 2, good.len() - 1] {
        let mut other = good.to_vec();
        other.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
        caught(&other)?;
    }
    // Fewer bytes, none, and an image that another manifest is right about.
    caught(&good[..good.len() / 2])?;
    caught(&[])?;
    caught(lab.data(crate::TINY_IMAGE)?)
}

pub fn a_decompressor_has_no_room_for_more_bytes(lab: &Lab) -> Outcome {
    let good = lab.data(crate::PROBE_IMAGE)?;
    let loading = Loading::begin()?;
    let mut job = Job::take()?;
    equal("the size that it is told", job.request.output_len, good.len() as u64)?;
    let (mut output, second) = job.output()?;
    equal("the room that it has", output.size(), good.len())?;
    let pages = (good.len() / 4096) as u64;
    for (offset, pages) in [(0, pages + 1), (pages, 1), (1, pages)] {
        let more = map_pages(second.slot(), offset, pages);
        refused("mapping more", more, Error::InvalidArgument)?;
    }
    fill(&mut output, good)?;
    equal("writing more", output.write(good.len(), &[1]), false)?;
    refused("freezing it itself", op::RegionSeal(second.slot()), Error::MissingRight)?;
    drop((output, second));
    job.finish()?;
    loading.runs()
}

pub fn a_decompressor_that_keeps_its_mapping_stops_the_load(lab: &Lab) -> Outcome {
    let loading = Loading::begin()?;
    let mut job = Job::take()?;
    let (mut output, second) = job.output()?;
    fill(&mut output, lab.data(crate::PROBE_IMAGE)?)?;
    drop(second);
    job.finish()?;
    loading.fails(LoadError::SealRefused, Some(Error::StillWritable))?;
    drop(output);
    Ok(())
}

pub fn a_decompressor_that_writes_from_another_thread_stops_the_load(lab: &Lab) -> Outcome {
    let loading = Loading::begin()?;
    let mut job = Job::take()?;
    let (mut output, second) = job.output()?;
    fill(&mut output, lab.data(crate::PROBE_IMAGE)?)?;
    let go_on = Arc::new(AtomicBool::new(true));
    let (going, gone) =
        (Arc::clone(&go_on), works("a bell", make(|dst| op::NotificationCreate(OWN_POOL, dst)))?);
    let bell = gone.slot();
    let writer = thread::spawn(4, move || {
        while going.load(Ordering::Relaxed) {
            let _ = output.write(4096, &[0xcc]);
            pause(clock::MILLISECOND);
        }
        drop(output);
        let _ = op::Signal(bell, 1);
    });
    works("a thread", writer)?;
    drop(second);
    job.finish()?;
    let outcome = loading.fails(LoadError::SealRefused, Some(Error::StillWritable));
    go_on.store(false, Ordering::Relaxed);
    works("the thread's end", ipc::wait(gone.slot(), clock::after(5 * SECOND)))?;
    outcome
}

/// A second capability to the output is gone when ModuleManager takes the image back: before the kernel looks at it.
pub fn a_decompressor_keeps_no_second_capability(lab: &Lab) -> Outcome {
    let hold = Hold::new()?;
    let loading = Loading::begin()?;
    let mut job = Job::take()?;
    let (mut output, second) = job.output()?;
    fill(&mut output, lab.data(crate::PROBE_IMAGE)?)?;
    let third = works("a third one", copy(second.slot(), Rights::WRITE | Rights::COPY))?;
    drop(output);
    job.finish()?;
    // The image is frozen and verified, and no process made yet.
    hold.reached()?;
    for slot in [second.slot(), third.slot()] {
        refused("mapping it once more", map(slot), Error::NoCapability)?;
    }
    drop(hold);
    loading.runs()
}

fn map(region: Slot) -> Result<OwnedSlot, CallError> {
    map_pages(region, 0, 1)
}

/// Maps pages of a Region to be written.
fn map_pages(region: Slot, offset: u64, pages: u64) -> Result<OwnedSlot, CallError> {
    let process = OWN_PROCESS.0.into();
    make(|dst| invoke(region, Op::RegionMap, &[process, PLACE, offset, pages, 1, dst.0.into()]))
}

/// Even if ModuleManager lets DeepCompression keep a capability with every right, a frozen Region is not written.
pub fn an_image_is_not_written_between_its_verification_and_its_process(lab: &Lab) -> Outcome {
    let image = filled(lab.data(crate::PROBE_IMAGE)?)?.into_region();
    refused("verifying it unfrozen", try_create(lab, image.slot()), Error::NotSealed)?;
    works("freezing it", op::RegionSeal(image.slot()))?;
    refused("mapping it to be written", map(image.slot()), Error::Sealed)?;
    let made = works("ProcessCreate", try_create(lab, image.slot()))?;
    refused("mapping it to be written while it runs", map(image.slot()), Error::Sealed)?;
    works("ending it", op::ProcessTerminate(made.slot(), 0))?;
    until("it has ended", || op::ProcessStatus(made.slot()).is_ok_and(|status| status.words[0] == 4))
}

fn try_create(lab: &Lab, image: Slot) -> Result<OwnedSlot, CallError> {
    let command = make(|dst| op::EndpointCreate(OWN_POOL, 0, 0, dst))?;
    let grants = [(probe::REQUEST_COMMAND, command.slot())];
    crate::lab::create(image, lab.proof(), POOL, crate::lab::PROBE_PRIORITY, &grants)
}
