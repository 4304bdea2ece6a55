"""Owns what is needed around and between steps: prompts, LoRAs as they arrive, what is next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swiftdiff.adapters.bal import ArrivingLoras, Boundary
from swiftdiff.pipeline.job import StepChange
from swiftdiff.pipeline.lane import LaneFuture
from swiftdiff.pipeline.shard import stack_prompts
from swiftdiff.systems.incoming import Incoming
from swiftdiff.systems.served_model import TEXT_ENCODERS, Prompts, ServedModel
from swiftdiff.telemetry.stages import StageTimer
from swiftdiff.telemetry.timeline import Details


class Service:
    """Requests on their way through the model as one. Used by the thread that serves.

    Args:
        model: The model.
        members: The requests and their claims on adapters. They claim the same ones, so the first's are used.
        bound: The step that waits for LoRAs which have not arrived.
        timer: Gets the stages ``text_encode``, ``lora_wait`` and ``lora_patch``. Its timeline gets a span for
            each step and patch, and is told which step the serving thread is at.
        look_ahead: Called before every step: lets loads for waiting requests begin, and returns the request
            whose prompt should be encoded next, if any.

    Attributes:
        first_steps: First step with each LoRA.
        between_steps_s: Seconds that `before_step` took, which are not denoising.
    """

    def __init__(
        self,
        model: ServedModel,
        members: Sequence[Incoming],
        bound: int,
        timer: StageTimer,
        look_ahead: Callable[[], Incoming | None],
    ) -> None:
        self._model = model
        self._members = members
        self._loras = ArrivingLoras(members[0].loras, model.patchers, bound)
        self._timer = timer
        self._look_ahead = look_ahead
        self._timeline = timer.timeline
        self._about: Details = {"request_id": members[0].request.request_id}
        self._step_began_s: float | None = None
        self._ahead: Incoming | None = None
        self._encoding: list[LaneFuture[Prompts]] = []
        self.first_steps: dict[str, int] = {}
        self.between_steps_s = 0.0

    def encode_first(self) -> Prompts:
        """Return all prompts as step 0 needs them; patches what is there by then.

        Encoding goes first if LoRAs are still loading, for it costs no time then. If they turn out to change
        the text encoders, it is done again.

        Raises:
            AdapterError: A LoRA that step 0 waits for cannot be loaded.
        """
        prompts = None
        if self._model.text_is_pristine and not all(load.ready() for load, _ in self._loras.loads):
            prompts = self._encode()
        self._patch_arrived(0)
        return prompts if prompts is not None and self._model.text_is_pristine else self._encode()

    def before_step(self, step: int) -> StepChange | None:
        """Patch what has arrived, or wait for it at the bound; see `pipeline.denoise.BeforeStep`."""
        # Where LoRAs may come in, what that takes the device is told from the steps; else nobody waits.
        now = self._timeline.now if self._loras.complete else self._timer.now
        began = now()
        self._end_step(began)
        self._timeline.tell({**self._about, "step": step})
        try:
            change = self._change(step) if step else None  # the first boundary was `encode_first`'s
            following = self._look_ahead()
            if following is not None and self._loras.complete and self._model.text_is_pristine:
                following.prompts = self._model.encode(following.request)
                self._ahead = following
            return change
        finally:
            self._step_began_s = now()
            self.between_steps_s += self._step_began_s - began

    def end_steps(self, ended_s: float) -> None:
        """Note that the last step ended, by the timer's clock."""
        self._end_step(ended_s)
        self._timeline.tell(self._about)

    def close(self) -> None:
        """Wait for what reads the text encoders: they may be patched now."""
        for future in self._encoding:
            future.wait()
        if self._ahead is not None and self._ahead.prompts is not None:
            self._ahead.prompts.wait()

    def _change(self, step: int) -> StepChange | None:
        boundary = self._patch_arrived(step)
        if not boundary.components:
            return None
        if boundary.components.isdisjoint(TEXT_ENCODERS):
            return StepChange()
        return StepChange(*self._encode(anew=True))

    def _patch_arrived(self, step: int) -> Boundary:
        if self._loras.complete:
            return Boundary()
        began = self._timer.now()
        boundary = self._loras.patch_arrived(step)
        ended = self._timer.now()
        elapsed_s = ended - began
        if self._loras.loads:
            self._timer.add("lora_wait", boundary.wait_s)
            self._timer.add("lora_patch", elapsed_s - boundary.wait_s)
            self._show(boundary, began, ended)
        self.first_steps.update({lora.adapter_id: lora.step for lora in boundary.patched})
        return boundary

    def _show(self, boundary: Boundary, began_s: float, ended_s: float) -> None:
        """Show in the timeline that loads were waited for, which comes first, and what was patched then."""
        patch_began_s = began_s + boundary.wait_s
        if boundary.wait_s:
            self._timeline.add("lora_wait", began_s, patch_began_s, self._timeline.context)
        if boundary.patched:
            names = ", ".join(lora.adapter_id for lora in boundary.patched)
            about = {**self._about, "step": boundary.patched[0].step, "adapter": names}
            self._timeline.add("lora_patch", patch_began_s, ended_s, about)

    def _end_step(self, ended_s: float) -> None:
        if self._step_began_s is not None:
            self._timeline.add("step", self._step_began_s, ended_s, self._timeline.context)
            self._step_began_s = None

    def _encode(self, *, anew: bool = False) -> Prompts:
        with self._timer.stage("text_encode"):
            self._encoding = [self._begin_encoding(member, anew) for member in self._members]
            prompts = [future.result() for future in self._encoding]
        negative = [prompt for _, prompt in prompts if prompt is not None]
        return stack_prompts([prompt for prompt, _ in prompts]), stack_prompts(negative) if negative else None

    def _begin_encoding(self, member: Incoming, anew: bool) -> LaneFuture[Prompts]:
        if member.prompts is not None and not anew and self._model.text_is_pristine:
            return member.prompts
        return self._model.encode(member.request)
