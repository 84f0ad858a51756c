"""All stages of a run."""

from .outputs import output_stages
from .settings import DemoSettings
from .stages import Stage, training_stages
from .transfer import transfer_stages


def plan_stages(settings: DemoSettings) -> list[Stage]:
    """List the stages of a run; each stands behind those that it needs.

    Args:
        settings (DemoSettings): The run.

    Returns:
        list[Stage]: In the order in which they are started.
    """
    training = training_stages(settings)
    transfer = transfer_stages(settings, training)
    outputs = output_stages(settings, training, transfer)
    return [*training, *transfer, *outputs]
