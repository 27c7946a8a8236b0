"""The steps of an attempt, as the agent takes them; those of the executor are within the third."""

from ktrdr.logs.steps import NumberedStep


class AgentStep(NumberedStep):
    """What the agent does with a request, the same in every mode."""

    ACCEPT = (1, "Accepting the training")
    FETCH = (2, "Fetching its data")
    RUN = (3, "Running the executor")
    DELIVER = (4, "Delivering how it ended")
